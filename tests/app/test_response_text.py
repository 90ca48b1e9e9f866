"""How a response's text is shown: formulas, tables, code, directions, and nothing that acts."""

import re
import time
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from app.web.markdown import render_markdown
from app.web.text.cache import TextCache
from app.web.text.code import LANGUAGES
from app.web.text.mathml import ATTRIBUTES, ELEMENTS, MAX_CHARACTERS, TEXT_ELEMENTS, to_mathml
from app.web.text.sanitiser import SCHEMES, TAGS, VALUES, sanitise

VOID = {"br", "hr"}
# What the sanitiser adds to each link, whatever the text says.
LINK = {"rel": "noopener noreferrer nofollow", "target": "_blank"}
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


class Shown(HTMLParser):
    """Reads HTML and complains of whatever is not on the list."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(  # noqa: D102 - HTMLParser's own name
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        if tag not in TAGS:
            self.problems.append(f"<{tag}>")
        if self.open and self.open[-1] in TEXT_ELEMENTS:
            self.problems.append(f"<{tag}> in <{self.open[-1]}>")
        self.problems += [
            f'<{tag} {name}="{value}">' for name, value in attrs if not self.is_allowed(tag, name, value or "")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:  # noqa: D102
        self.text += data

    def handle_comment(self, data: str) -> None:  # noqa: D102
        self.problems.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:  # noqa: D102
        self.problems.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:  # noqa: D102
        self.problems.append(f"<?{data}>")

    @staticmethod
    def is_allowed(tag: str, name: str, value: str) -> bool:
        if tag == "a" and name == "href":
            address = urlsplit(value)
            return address.scheme in SCHEMES and bool(address.netloc or address.scheme == "mailto")
        if tag == "a":
            return LINK.get(name) == value
        if tag == "ol" and name == "start":
            return value.isdigit()
        if tag in ELEMENTS:
            return name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value) is not None
        return value in VALUES.get(tag, {}).get(name, set())


def shown(html: str) -> Shown:
    reader = Shown()
    reader.feed(html)
    reader.close()
    return reader


def problems_of(html: str) -> list[str]:
    reader = shown(html)
    return reader.problems + [f"<{tag}> is left open" for tag in reader.open]


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


@given(
    st.lists(
        st.sampled_from(
            r"\frac { } ^ _ x 1 \left( \right) \begin{matrix} \end{matrix} & \\ \text{a<b} \sqrt [ ] \sum \limits \mathbf "
            r"\over \overbrace \hspace{1em} \raise{1em} \color{red} \unicode{x3c} < > \verb|<| \href{x}{y} \' % \hline "
            r"\operatorname{f} \genfrac \sideset \skew \rule \mod \bra \cases \substack \middle| \not \tag{1} \hbox{$x$}".split()
        ),
        max_size=12,
    )
)
@settings(max_examples=400, deadline=None)
def test_every_formula_is_converted_or_shown(parts: list[str]) -> None:
    latex = " ".join(parts)
    mathml = to_mathml(latex, is_display=False)
    assert mathml is None or problems_of(mathml) == []
    html = render_markdown(f"a ${latex.strip()}$ b")
    assert problems_of(html) == []


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("$x^2$", "inline"),
        ("so $n$-gon, $n$th", "inline"),
        (r"\(a < b\)", "inline"),
        ("$2 x$", "inline"),
        (r"$2 \times 3$", "inline"),
        ("a $$x$$ b", "block"),
        ("$$\nx\n= y\n$$", "block"),
        ("\\[\nx\n- y\n\\]", "block"),
        ("so:\n\\[ x \\].", "block"),
        ("> \\[\n> a \\\\\n> b\n> \\]", "block"),
        ("- one\n  $$\n  x\n  $$\n- two", "block"),
        ("\\begin{align}\na &= b \\\\\n&= c\n\\end{align}", "block"),
        ("```math\nx\n```", "block"),
    ],
)
def test_formulas_become_mathml(text: str, display: str) -> None:
    html = render_markdown(text)
    assert f'<math display="{display}">' in html
    assert "$" not in html
    assert "&gt;" not in html
    assert problems_of(html) == []


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $10",
        "It costs $5-$10, or US$5/$6.",
        "I have $20 and you have 30$.",
        "from $1,000 to 2,000$ a year",
        "$5 million and 6 million$",
        "echo $HOME:$PATH",
        "`$x$` and $`x`$",
        "a $ b $ c",
        r"\$x\$",
        "$",
        "$$",
        "$$ $$",
        "$x",
        "x$",
    ],
)
def test_dollars_that_are_money_stay_text(text: str) -> None:
    html = render_markdown(text)
    assert "<math" not in html
    assert shown(html).text.strip() == text.replace("\\$", "$").replace("`", "")


@pytest.mark.parametrize(
    "latex",
    [
        r"\foo{x}",
        r"\ce{H2O}",
        r"\left(x",
        "x^",
        r"\newcommand{\a}{\a\a}\a",
        r"\def\a{\a\a}\a",
        "{" * 900,
        "{" * 900 + "x" + "}" * 900,
        r"\sqrt" * 300 + "x",
        r"\left(" * 300 + r"\right)" * 300,
        r"\begin{matrix}" * 60 + r"\end{matrix}" * 60,
        "x" * (MAX_CHARACTERS + 1),
    ],
    ids=lambda latex: latex[:12],
)
def test_what_is_no_formula_is_shown_as_its_source(latex: str) -> None:
    assert to_mathml(latex, is_display=True) is None
    html = render_markdown(f"```math\n{latex}\n```")
    assert f'<code dir="ltr">{latex}</code>' in html


def test_a_text_of_formulas_stops_being_converted() -> None:
    html = render_markdown(r"$\frac{a}{b}$ " * 3000)
    assert 1000 < html.count("<math") < 3000
    assert html.count("<math") + html.count("<code") == 3000


def test_lines_of_an_equation_stand_below_each_other() -> None:
    for latex in (r"\begin{aligned} a &= b \\ &= c \end{aligned}", r"a &= b \\ &= c"):
        mathml = to_mathml(latex, is_display=True)
        assert mathml is not None
        assert mathml.count("<mtr>") == 2
        assert "&amp;" not in mathml


def test_each_block_has_its_own_direction() -> None:
    html = render_markdown("Hello\n\n\u0633\u0644\u0627\u0645\n\n# Title\n\n| a |\n|:-:|\n| b |")
    for block in ('<p dir="auto">Hello', '<p dir="auto">\u0633', '<h1 dir="auto">', '<td dir="auto" class="center">'):
        assert block in html


def test_containers_follow_their_first_letter() -> None:
    html = render_markdown("1. **\u0633\u0644\u0627\u0645**\n2. b\n\n> `a` \u05e9\n\n- 1\n- 2\n\n> - \u0633\n")
    assert re.findall(r"<(ol|ul|li|blockquote)(?: dir=\"(\w+)\")?>", html) == [
        ("ol", "rtl"),
        ("li", "rtl"),
        ("li", "ltr"),
        ("blockquote", "rtl"),
        ("ul", ""),
        ("li", ""),
        ("li", ""),
        ("blockquote", "rtl"),
        ("ul", "rtl"),
        ("li", "rtl"),
    ]


def test_code_stays_left_to_right_and_is_coloured() -> None:
    html = render_markdown("```python\nif x: pass\n```\n\n    plain\n\n`x`\n\n```klingon\nif x\n```")
    assert html.count('<pre dir="ltr" tabindex="0"><code>') == 3
    assert '<span class="k">if</span>' in html
    assert '<code dir="ltr">x</code>' in html
    assert "<code>if x\n</code>" in html


def test_wide_things_scroll_in_a_box_that_the_keyboard_reaches() -> None:
    html = render_markdown("| a | b |\n|--|--:|\n| 1 | ~~2~~ |\n\n$$x$$")
    assert '<div class="wide" role="group" aria-label="Table" tabindex="0"><table dir="ltr">' in html
    assert '<td dir="auto" class="right"><s>2</s></td>' in html
    assert '<div class="wide" role="group" aria-label="Formula" tabindex="0"><math' in html


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f\u200d\U0001f525",
        "e\u0301 n\u0303 \u0915\u093f \u0e17\u0e35\u0e48",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 hello \u05e9\u05dc\u05d5\u05dd",
        "[ ] to do",
    ],
)
def test_characters_come_out_as_they_went_in(text: str) -> None:
    assert shown(render_markdown(text)).text.strip() == text
    assert shown(render_markdown(f"```python\n# {text}\n```")).text.strip() == f"# {text}"
    assert shown(render_markdown(f"- {text}")).text.strip() == text


def test_a_picture_is_named_and_not_loaded() -> None:
    assert render_markdown("![a *cat*](https://evil.example/cat.png)") == '<p dir="auto">[Image: a cat]</p>\n'


LENGTH = 100_000
UNITS = (
    ">", "> ", "- ", "* a\n ", "- - - a\n", "[", "![", "[[a]", "[](", "[a][", "*", "*a _b ", "**a *a ", "`", "``a ` ", "$", "$a ",
    "$x$ ", "$$x\n", "- $$x\n", "\\(", "\\[x\n", "\\[\n\n", "\\begin{align}\n", "<", "<!--", "&", "a|b\n-|-\n", "|", "~~a", "\\",
    "\n", "\x00", "\u202e", "a\n", "```\n", "\U0001f468\u200d",
)  # fmt: skip


@pytest.mark.parametrize("length", [LENGTH, 60_000])
@pytest.mark.parametrize("unit", UNITS)
def test_no_repetition_takes_long(unit: str, length: int) -> None:
    text = (unit * length)[:length]
    started_at = time.thread_time()
    html = render_markdown(text)
    # It takes up to 0.7 seconds where two processes share a machine; what is quadratic would take minutes.
    assert time.thread_time() - started_at < 3
    assert len(html) >= length // 100


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(">" * depth + " a" for depth in range(300)),
        "\n".join("  " * depth + "- a" for depth in range(240)),
        "*" * 30_000 + "a" + "*" * 30_000,
        "**a " * 7000 + " b**" * 7000,
        "[" * 20_000 + "a" + "](b)" * 10_000,
        "|" * 200 + "\n" + "|-" * 201 + "\n" + "a\n" * 20_000,
    ],
    ids=["quotations", "lists", "emphasis", "strong", "links", "table"],
)
def test_deep_nesting_is_shown(text: str) -> None:
    started_at = time.thread_time()
    assert "a" in render_markdown(text)
    assert time.thread_time() - started_at < 3


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_code_made_to_be_slow_is_shown_plain(language: str) -> None:
    started_at = time.thread_time()
    for unit in ("\n", "\n ", "a\n", "'", "/*", "\\"):
        code = (unit * 10_000)[:10_000]
        html = render_markdown(f"~~~{language}\n{code}!\n~~~")
        assert shown(html).text.strip() == f"{code}!".strip()
    assert time.thread_time() - started_at < 6


def test_the_cache_keeps_to_its_size_and_to_the_latest() -> None:
    made: list[str] = []

    def function(text: str) -> Markup:
        made.append(text)
        return Markup(text.upper())

    cache = TextCache(function, max_bytes=2000)
    first = "a" * 200
    for text in (first, "b" * 200, first, "c" * 200, "d" * 200, first):
        assert cache(text) == text.upper()
    assert made == [first, "b" * 200, "c" * 200, "d" * 200]
    assert cache("b" * 200) == "B" * 200
    assert made[-1] == "b" * 200
    assert cache("e" * 5000) == "E" * 5000
    assert cache.size <= 2000
