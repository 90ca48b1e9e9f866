"""Reads the annotator's pages as a browser would: which screen, which responses, which forms."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)


@dataclass
class PageForm:
    """A form of a page: where it goes, what it sends by itself, and what it lets one choose from."""

    action: str
    hidden: dict[str, str] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    """The values of radio buttons, checkboxes, buttons and selects, by name."""
    texts: dict[str, bool] = field(default_factory=dict)
    """The fields for longer text by name, and whether they must be filled."""


@dataclass(frozen=True)
class ShownResponse:
    """A response on the screen: the id that a choice sends back, and the text that a person would read."""

    response_id: str
    text: str


@dataclass
class AnnotatorPage:
    """What a simulated annotator sees."""

    screen: str = ""
    """``write``, ``waiting``, ``preparing``, ``judge``, ``continue``, ``failed`` or ``closed``; empty elsewhere."""
    comparison: str = ""
    conversation: str = ""
    prompt: str = ""
    """What the user said last, in the conversation that is on the screen."""
    poll: str = ""
    """Where a waiting screen asks for what is new."""
    responses: list[ShownResponse] = field(default_factory=list)
    """In the order of the page, that is A before B."""
    forms: list[PageForm] = field(default_factory=list)

    def form(self, ending: str) -> PageForm | None:
        """The form whose action ends like this."""
        return next((form for form in self.forms if form.action.split("?")[0].endswith(ending)), None)


def read_page(html: str) -> AnnotatorPage:
    """Read a page; what it does not know it passes over."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = AnnotatorPage()
        self._forms_by_id: dict[str, PageForm] = {}
        self._form: PageForm | None = None
        self._select = ""
        self._response_id = ""
        self._is_user_speaking = False
        self._captured: list[str] | None = None
        self._open_tags = 0
        """How many tags are open within the element whose text is captured, itself included."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._note_position(values)
        if self._captured is not None and tag not in _VOID:
            self._open_tags += 1
        if "data-response" in values:
            self._response_id = values["data-response"]
        classes = values.get("class", "").split()
        if tag == "li":
            self._is_user_speaking = "by-user" in classes
        is_text = ("data-text" in values and self._response_id) or ("text" in classes and self._is_user_speaking)
        if is_text and self._captured is None and tag not in _VOID:
            self._captured, self._open_tags = [], 1
        self._note_form(tag, values)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = ""
        if self._captured is None or tag in _VOID:
            return
        self._open_tags -= 1
        if self._open_tags == 0:
            self._take("".join(self._captured))
            self._captured = None

    def handle_data(self, data: str) -> None:
        if self._captured is not None:
            self._captured.append(data)

    def _take(self, text: str) -> None:
        """Note a text that is complete: a response, or what the user said."""
        if self._response_id:
            self.page.responses.append(ShownResponse(self._response_id, text))
            self._response_id = ""
        else:
            self.page.prompt = text
            self._is_user_speaking = False

    def _note_position(self, values: dict[str, str]) -> None:
        self.page.screen = self.page.screen or values.get("data-screen", "")
        self.page.comparison = self.page.comparison or values.get("data-comparison", "")
        self.page.conversation = self.page.conversation or values.get("data-conversation", "")
        if values.get("id") == "progress":
            self.page.poll = values.get("hx-get", "")

    def _note_form(self, tag: str, values: dict[str, str]) -> None:
        if tag == "form":
            self._form = PageForm(action=values.get("action", ""))
            self.page.forms.append(self._form)
            if "id" in values:
                self._forms_by_id[values["id"]] = self._form
            return
        form = self._forms_by_id.get(values["form"]) if "form" in values else self._form
        if form is None:
            return
        name, value = values.get("name", ""), values.get("value", "")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            form.options.setdefault(self._select, []).append(value)
        elif tag == "input" and values.get("type") == "hidden":
            form.hidden[name] = value
        elif tag == "textarea":
            form.texts[name] = "required" in values
        elif name and (tag == "button" or values.get("type") in {"radio", "checkbox"}):
            form.options.setdefault(name, []).append(value)
