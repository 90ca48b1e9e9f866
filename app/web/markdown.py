"""Shows a model's or a person's Markdown safely: rendered first, sanitised last."""

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# No links that act, no remote images (they would tell their server who is reading), no forms, no styles.
_TAGS = frozenset(
    "a blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong sub sup "
    "table tbody td th thead tr ul".split()
)
# Classes are those of Pygments, which marks words with spans.
_ATTRIBUTES = {"a": {"href"}, "span": {"class"}, "ol": {"start"}}
_FORMATTER = HtmlFormatter(nowrap=True)


def _highlight(code: str, language: str, _attributes: str) -> str:
    """A code block with its words marked for colour; an unknown language is shown plain."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, _FORMATTER))


_MARKDOWN = MarkdownIt("commonmark", {"breaks": True, "html": False, "highlight": _highlight}).enable(
    ["table", "strikethrough"]
)


def render_markdown(text: str) -> Markup:
    """HTML of some Markdown, without anything that could act, load or look like the page itself."""
    html = nh3.clean(
        _MARKDOWN.render(text),
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        # A link without a host would lead into this app, and look like a part of it.
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    # nh3 has sanitised the HTML, which is what allows it to be marked as safe.
    return Markup(html)  # noqa: S704
