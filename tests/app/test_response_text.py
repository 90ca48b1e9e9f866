"""How a response's text is shown: formulas, tables, code, directions, and nothing that acts."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from app.web.markdown import render_markdown
from app.web.text.cache import TextCache
from app.web.text.code import LANGUAGES
from app.web.text.mathml import MAX_CHARACTERS, to_mathml
from tests.app.shown import problems_of, shown


@given(
    st.lists(
        st.sampled_from(
            r"\frac { } ^ _ x 1 \left( \right) \begin{matrix} \end{matrix} & \\ \text{a<b} \sqrt [ ] \sum \limits "
            r"\mathbf "
            r"\over \overbrace \hspace{1em} \raise{1em} "
            r"\color{red} \unicode{x3c} < > \verb|<| \href{x}{y} \' % \hline "
            r"\operatorname{f} \genfrac \sideset \skew "
            r"\rule \mod \bra \cases \substack \middle| \not \tag{1} \hbox{$x$}".split()
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
    ids=range(12),
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
    ">", "> ", "- ", "* a\n ", "- - - a\n", "[", "![", "[[a]", "[](", "[a][",
    "*", "*a _b ", "**a *a ", "`", "``a ` ", "$", "$a ",
    "$x$ ", "$$x\n", "- $$x\n", "\\(", "\\[x\n", "\\[\n\n", "\\begin{align}\n", "<", "<!--", "&", "a|b\n-|-\n", "|",
    "~~a", "\\",
    "\n", "\x00", "\u202e", "a\n", "```\n", "\U0001f468\u200d",
)  # fmt: skip


@pytest.mark.parametrize("length", [LENGTH, 60_000])
@pytest.mark.parametrize("unit", UNITS)
def test_no_repetition_takes_long(unit: str, length: int) -> None:
    text = (unit * length)[:length]
    started_at = time.thread_time()
    render_markdown(text)
    # It takes up to 0.7 seconds where two processes share a machine; what is quadratic would take minutes.
    assert time.thread_time() - started_at < 3


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
    for unit in ("\n", "\n ", "a\n", "a=", "/*", "\\"):
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
