"""Shows a model's or a person's Markdown safely: rendered first, sanitised last."""

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from app.web.text.cache import TextCache
from app.web.text.code import write_code
from app.web.text.directions import add_directions
from app.web.text.formulas import add_formulas, write_formula
from app.web.text.sanitiser import sanitise

_CACHED_BYTES: Final = 32 * 1024 * 1024
# Four times the longest response. What somebody made to be longer is shown as it is.
_MAX_CHARACTERS: Final = 64_000
_ADDRESS: Final = re.compile(r"https?://[^/\\?#]|mailto:[^/]", re.IGNORECASE)
_TABLE: Final = '<div class="wide" role="group" aria-label="Table" tabindex="0">'


def render_markdown(text: str) -> Markup:
    """HTML of some Markdown, without anything that could act, load or look like the page itself."""
    return _rendered(text)


def _code(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
    if language == "math":
        return f"<p>{write_formula(token.content, env, is_display=True)}</p>\n"
    return write_code(token.content, language, env)


def _code_inline(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType) -> str:
    return f'<code dir="ltr">{escape(tokens[index].content, quote=False)}</code>'


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """What a picture is said to show: to load it would tell its server who is reading."""
    return f"[Image: {escape(self.renderInlineAsText(tokens[index].children, options, env), quote=False)}]"


def _table_open(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _env: EnvType) -> str:
    """A table may be wider than its column, and then scrolls within a box that the keyboard reaches."""
    return _TABLE + self.renderToken(tokens, index, options, _env)


def _table_close(
    _self: RendererHTML, _tokens: Sequence[Token], _index: int, _options: OptionsDict, _env: EnvType
) -> str:
    return "</table></div>\n"


def _align_by_class(state: StateCore) -> None:
    """A column's alignment as a class, since our pages allow no style attributes."""
    for token in state.tokens:
        style = token.attrs.pop("style", None)
        if style is not None:
            token.attrs["class"] = str(style).removeprefix("text-align:")


class _Parser(MarkdownIt):
    """Markdown whose links lead elsewhere, or are shown as they were written."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - The parser's own name.
        """Whether a link may be one. A browser takes ``http:sign-out`` for an address in this app."""
        return _ADDRESS.match(url) is not None


def _make_parser() -> MarkdownIt:
    parser = _Parser("commonmark", {"breaks": True, "html": False}).enable(["table", "strikethrough"])
    add_formulas(parser)
    parser.core.ruler.push("directions", add_directions)
    parser.core.ruler.push("alignment", _align_by_class)
    for name, rule in {
        "fence": _code,
        "code_block": _code,
        "code_inline": _code_inline,
        "image": _image,
        "table_open": _table_open,
        "table_close": _table_close,
    }.items():
        parser.add_render_rule(name, rule)
    return parser


_PARSER: Final = _make_parser()


def _render(text: str) -> Markup:
    is_short = len(text) <= _MAX_CHARACTERS
    html = _PARSER.render(text) if is_short else f'<p dir="auto" class="plain">{escape(text, quote=False)}</p>'
    # The sanitiser's output is what may be marked as safe.
    return Markup(sanitise(html))  # noqa: S704


_rendered: Final = TextCache(_render, _CACHED_BYTES)
