"""Reads HTML as a browser would show it, and complains of whatever the sanitiser does not list."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

from app.web.text.mathml import ATTRIBUTES, ELEMENTS, TEXT_ELEMENTS
from app.web.text.sanitiser import SCHEMES, TAGS, VALUES

VOID = {"br", "hr"}
# What the sanitiser adds to each link, whatever the text says.
LINK = {"rel": "noopener noreferrer nofollow", "target": "_blank"}


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
        """Whether an attribute may stand at an element with this value."""
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
