"""Shows code: marked for colour where the language is a common one, plain otherwise, always left to right."""

from collections.abc import Iterator
from functools import lru_cache
from html import escape
from io import StringIO
from time import thread_time
from typing import Final

from markdown_it.utils import EnvType
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_by_name
from pygments.token import STANDARD_TYPES, Text, _TokenType

# Pygments knows hundreds of languages, and some of its expressions take very long on text made for that.
# These are what people ask for, and the tests try each with such text.
LANGUAGES: Final = frozenset(
    "bash c c++ cpp cs csharp css diff docker dockerfile go html java javascript js json kotlin latex lua make "
    "makefile matlab php powershell py python r rb ruby rust scala sh shell sql swift tex toml ts typescript xml yaml "
    "yml zsh".split()
)
CLASSES: Final = frozenset(STANDARD_TYPES.values()) - {""}
# A typical block takes a hundredth of this. Some lexers need quadratic time for thousands of empty lines: what is left
# of a text when its time is spent stays plain. It is the thread's own time, so that a busy machine changes nothing.
_MAX_SECONDS_OF_A_TEXT = 0.25
# A single expression is not interrupted, and may be quadratic too.
_MAX_CHARACTERS = 20_000
_FORMATTER: Final = HtmlFormatter(nowrap=True)


def write_code(code: str, language: str, env: EnvType) -> str:
    """A block of code as HTML. It can be focused, so that the keyboard scrolls a long line."""
    known = language.lower() in LANGUAGES and len(code) <= _MAX_CHARACTERS
    marked = _marked(code, language.lower(), env) if known else escape(code, quote=False)
    return f'<pre dir="ltr" tabindex="0"><code>{marked}</code></pre>\n'


def _marked(code: str, language: str, env: EnvType) -> str:
    started_at = thread_time()
    left = _MAX_SECONDS_OF_A_TEXT - float(env.get("code_seconds", 0))
    html = StringIO()
    _FORMATTER.format(_words(code, language, started_at + left), html)
    env["code_seconds"] = float(env.get("code_seconds", 0)) + thread_time() - started_at
    return html.getvalue()


def _words(code: str, language: str, end: float) -> Iterator[tuple[_TokenType, str]]:
    """The code's words with their kinds, until its time is over."""
    # A lexer may remember where it was, so each text gets its own.
    lexer = _lexer_class(language)()
    for position, kind, word in lexer.get_tokens_unprocessed(code):
        if thread_time() > end:
            yield Text, code[position:]
            return
        yield kind, word


@lru_cache(maxsize=len(LANGUAGES))
def _lexer_class(language: str) -> type[Lexer]:
    """The search through all of Pygments' names, once for each language."""
    return find_lexer_class_by_name(language)
