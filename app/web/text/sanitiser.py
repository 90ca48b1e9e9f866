"""The last step of showing a text: only what stands here gets through, whatever the steps before it wrote."""

from typing import Final

import nh3

from app.web.text.code import CLASSES
from app.web.text.mathml import ATTRIBUTES, ELEMENTS

# No links that act, no remote images (they would tell their server who is reading), no forms, no styles.
TAGS: Final = ELEMENTS | frozenset(
    "a blockquote br code div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul".split()
)
_OWN_DIRECTION: Final = {"dir": {"auto"}}
_CONTAINER_DIRECTION: Final = {"dir": {"ltr", "rtl"}}
_ALIGNED: Final = _OWN_DIRECTION | {"class": {"left", "center", "right"}}
# What the renderer writes itself. A text can choose a number and an address, and nothing else.
VALUES: Final = {
    "p": _OWN_DIRECTION | {"class": {"plain"}},
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _OWN_DIRECTION),
    **dict.fromkeys(("blockquote", "li", "ol", "table", "ul"), _CONTAINER_DIRECTION),
    **dict.fromkeys(("td", "th"), _ALIGNED),
    "code": {"dir": {"ltr"}},
    "div": {"class": {"wide"}, "role": {"group"}, "aria-label": {"Table", "Formula"}, "tabindex": {"0"}},
    "pre": {"dir": {"ltr"}, "tabindex": {"0"}},
    "span": {"class": set(CLASSES)},
}
SCHEMES: Final = frozenset({"http", "https", "mailto"})
_CLEANER: Final = nh3.Cleaner(
    tags=set(TAGS),
    attributes={"*": set(), "a": {"href"}, "ol": {"start"}, **{tag: set(ATTRIBUTES) for tag in ELEMENTS}},
    tag_attribute_values=VALUES,
    # A link that is followed leaves the work where it is.
    set_tag_attribute_values={"a": {"target": "_blank"}},
    url_schemes=set(SCHEMES),
    # A link without a host would lead into this app, and look like a part of it.
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


def sanitise(html: str) -> str:
    """The HTML without anything that could act, load or look like the page itself."""
    return _CLEANER.clean(html)
