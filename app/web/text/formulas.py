"""Finds formulas in Markdown: dollars, backslash brackets and bare environments, each search bounded."""

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from app.web.text.mathml import MAX_CHARACTERS, to_mathml

# A page of nothing but formulas; what comes after is shown as source, so that no text can keep a server busy.
_MAX_CHARACTERS_OF_A_TEXT = 20_000
_CLOSINGS: Final = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_BEGINNING: Final = re.compile(
    r"\\begin\{((?:align|alignat|displaymath|eqnarray|equation|flalign|gather|multline)\*?)\}"
)
_BLANK_LINE: Final = re.compile(r"\n[ \t>]*\n")
_AFTER_A_BLOCK: Final = re.compile(r"[ \t]*([.,;:]?)[ \t]*(?:\n|$)")
# A dollar that closes stands behind no space and before no letter or digit, as in "$n$", "$n$-gon" and "$n$th".
_DOLLARS: Final = re.compile(
    r"\$(?![\s$])((?:[^$\\`]|\\.){1,1000}+)(?<!\s)\$(?!\$)(?:(?![^\W_])|(?=(?:st|nd|rd|th)\b))", re.DOTALL
)
# "$20 and 30$" is two prices, "$2 x$" and "$2 \times 3$" are formulas.
_PRICE: Final = re.compile(r"\d[\d.,]*[kKmMbB]?(?:\s*[-\u2013\u2014]\s*|\s+)[^\W\d_]{2,}")


def add_formulas(markdown: MarkdownIt) -> None:
    """Teach a parser to find formulas, and its renderer to write them as MathML."""
    markdown.inline.ruler.before("escape", "formula", _inline)
    markdown.block.ruler.before(
        "fence", "formula_block", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    markdown.add_render_rule("formula", _write)
    markdown.add_render_rule("formula_block", _write)


def write_formula(latex: str, env: EnvType, *, is_display: bool) -> str:
    """HTML of a formula: MathML, or its source where that cannot be had."""
    spent = int(env.get("formula_characters", 0)) + len(latex)
    env["formula_characters"] = spent
    mathml = to_mathml(latex, is_display=is_display) if spent <= _MAX_CHARACTERS_OF_A_TEXT else None
    return mathml or f'<code dir="ltr">{escape(latex.strip(), quote=False)}</code>'


def _write(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    html = write_formula(token.content, env, is_display=token.info == "display")
    return f'<div class="wide" role="group" aria-label="Formula" tabindex="0">{html}</div>\n' if token.block else html


def _inline(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - The parser calls it so.
    """A formula within a paragraph."""
    opening = state.src[state.pos : state.pos + 2]
    if opening in _CLOSINGS:
        content = _between(state.src, state.pos + 2, _CLOSINGS[opening])
        length = 4 + len(content or "")
    elif opening[0] == "$":
        content = _between_dollars(state)
        length = 2 + len(content or "")
    else:
        return False
    if content is None:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = content
        token.info = "" if opening == "\\(" or opening not in _CLOSINGS else "display"
    state.pos += length
    return True


def _between(source: str, start: int, closing: str) -> str | None:
    """What stands before the next closing, if that is near."""
    end = source.find(closing, start, start + MAX_CHARACTERS)
    content = source[start:end]
    return content if end > start and content.strip() and not _BLANK_LINE.search(content) else None


def _between_dollars(state: StateInline) -> str | None:
    before = state.src[state.pos - 1 : state.pos]
    # "US$5" is a price; behind a dollar stands what is left of "$$".
    if before.isalnum() or before == "$":
        return None
    found = _DOLLARS.match(state.src, state.pos)
    return None if found is None or _PRICE.match(found[1]) else found[1]


def _block(state: StateBlock, line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001 - As above.
    """A formula on lines of its own, which no list or heading may interrupt."""
    if state.is_code_block(line):
        return False
    start = state.bMarks[line] + state.tShift[line]
    opening, closing = _block_marks(state.src, start)
    if not opening:
        return False
    end = state.src.find(closing, start + len(opening), start + MAX_CHARACTERS)
    after = _AFTER_A_BLOCK.match(state.src, end + len(closing)) if end > 0 else None
    if after is None or not state.src[start + len(opening) : end].strip() or _BLANK_LINE.search(state.src, start, end):
        return False
    last = line
    while state.eMarks[last] < end:
        last += 1
        # A list or quotation that ends here ends the formula's text too.
        if last >= end_line or state.sCount[last] < state.blkIndent:
            return False
    if not silent:
        # Lines without what stands before them in a quotation or a list.
        lines = state.getLines(line, last + 1, state.blkIndent, keepLastLF=False).strip()
        content = lines.removesuffix(after[1]).rstrip() if after[1] else lines
        token = state.push("formula_block", "math", 0)
        token.block = True
        token.info = "display"
        token.map = [line, last + 1]
        token.content = content if opening.startswith("\\b") else content[len(opening) : -len(closing)]
        token.content += after[1]
    state.line = last + 1
    return True


def _block_marks(source: str, start: int) -> tuple[str, str]:
    """How a formula's block begins here, and how it must end; empty where none begins."""
    opening = source[start : start + 2]
    if opening in {"$$", "\\["}:
        return opening, _CLOSINGS[opening]
    if opening == "\\b" and (found := _BEGINNING.match(source, start)):
        return found[0], f"\\end{{{found[1]}}}"
    return "", ""
