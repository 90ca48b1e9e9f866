"""Turns LaTeX into MathML, or refuses: the caller then shows the source."""

import re
from collections.abc import Mapping
from html import escape, unescape
from typing import Final
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter

# Longer than what fits on a screen. What the converter does is at worst quadratic in this.
MAX_CHARACTERS = 2000
_MAX_DEPTH = 40

_YES_OR_NO: Final = re.compile("true|false")
_WORDS: Final = re.compile("[a-z -]{1,40}")
# Never negative, never large: a formula may not move over what stands beside it.
_LENGTH: Final = re.compile(r"\+?(?:\d|\d?\.\d{1,3}|\d\.\d{1,3})(?:em|ex|px|pt|mu)?|[a-z]{4,10}mathspace")
# Elements without behaviour, and never one that may hold HTML or other markup (annotation-xml, mglyph, maction).
TEXT_ELEMENTS: Final = frozenset({"mi", "mn", "mo", "mtext"})
ELEMENTS: Final = TEXT_ELEMENTS | frozenset(
    "math menclose mfrac mmultiscripts mover mpadded mphantom mroot mrow mspace msqrt mstyle msub msubsup msup "
    "mtable mtd mtr munder munderover".split()
)
ATTRIBUTES: Final[Mapping[str, re.Pattern[str]]] = {
    "accent": _YES_OR_NO,
    "accentunder": _YES_OR_NO,
    "columnalign": _WORDS,
    "columnlines": _WORDS,
    "depth": _LENGTH,
    "display": re.compile("block|inline"),
    "displaystyle": _YES_OR_NO,
    "fence": _YES_OR_NO,
    "form": _WORDS,
    "height": _LENGTH,
    "linethickness": _LENGTH,
    "lspace": _LENGTH,
    "mathvariant": _WORDS,
    "maxsize": _LENGTH,
    "minsize": _LENGTH,
    "movablelimits": _YES_OR_NO,
    "notation": _WORDS,
    "rowlines": _WORDS,
    "rspace": _LENGTH,
    "scriptlevel": re.compile("[0-2]"),
    "separator": _YES_OR_NO,
    "stretchy": _YES_OR_NO,
    "width": _LENGTH,
}
# Definitions could expand without end.
_REFUSED: Final = re.compile(r"\\(?:newcommand|renewcommand|newenvironment|def|let|DeclareMathOperator)(?![a-zA-Z])")
_ENVIRONMENT: Final = re.compile(r"\\(begin|end)\s*\{([a-zA-Z]+)(\*?)\}")
# What the converter does not know, as the nearest thing that it knows. None leaves only the content.
_ENVIRONMENTS: Final[Mapping[str, str | None]] = {
    "align": "align*",
    "aligned": "align*",
    "eqnarray": "align*",
    "flalign": "align*",
    "split": "align*",
    "gather": "matrix",
    "gathered": "matrix",
    "multline": "matrix",
    "equation": None,
    "math": None,
    "displaymath": None,
}
_CODE_POINT: Final = re.compile(r"&#x[0-9A-Fa-f]{1,6};")
_ESCAPED_IN_TEXT: Final = re.compile(r"\\([_%$#&{}])")


class _NotConvertible(Exception):  # noqa: N818 - It is no error: the source is shown.
    """The formula holds something that has no MathML of ours."""


def to_mathml(latex: str, *, is_display: bool) -> str | None:
    """The formula as a ``math`` element, or None where it must be shown as its source."""
    if len(latex) > MAX_CHARACTERS or not latex.strip() or _REFUSED.search(latex):
        return None
    known = _ENVIRONMENT.sub(_known_environment, latex)
    if "\\\\" in known and "\\begin" not in known:
        # Lines without the environment that they need.
        known = f"\\begin{{align*}}{known}\\end{{align*}}"
    try:
        tree = Converter(display="block" if is_display else "inline").convert_to_element(known)
        return _written(tree, 0)
    # The library raises errors of many kinds on what is no formula, IndexError and RecursionError among them.
    except Exception:  # noqa: BLE001
        return None


def _known_environment(match: re.Match[str]) -> str:
    """The same begin or end, of an environment that the converter knows."""
    which, name, star = match.groups()
    known = _ENVIRONMENTS.get(name, name + star)
    return f"\\{which}{{{known}}}" if known else ""


def _written(element: Element, depth: int) -> str:
    """An element as text. The library's own way of writing undoes the escaping of the formula's text."""
    tag = element.tag
    if depth > _MAX_DEPTH or tag not in ELEMENTS or (tag in TEXT_ELEMENTS and len(element)):
        raise _NotConvertible
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value)
    )
    if tag == "mtable" and "columnspacing" in element.attrib:
        # Lines of an equation, and not a matrix: they are as large as an equation on its own.
        attributes += ' displaystyle="true"'
    content = "".join(_written(child, depth + 1) for child in element)
    return f"<{tag}{attributes}>{_text(element)}{content}</{tag}>"


def _text(element: Element) -> str:
    if not element.text:
        return ""
    if element.tag == "mtext":
        text = _ESCAPED_IN_TEXT.sub(r"\1", element.text)
    elif "\\" in element.text and element.text != "\\":
        # The converter passes on commands that it does not know.
        raise _NotConvertible
    else:
        text = element.text
    return escape(_CODE_POINT.sub(lambda found: unescape(found[0]), text), quote=False)
