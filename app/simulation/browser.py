"""What a simulated annotator's browser does: signs in by link, keeps cookies, follows redirects, sends forms."""

import time
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import httpx

from app.simulation.pages import AnnotatorPage, PageForm, read_page
from contract.errors import ContractError

_TIMEOUT_S = 60.0
# What htmx says when it replaces a part of the page; the app then answers with that part alone.
_PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


class SimulationError(ContractError):
    """The app did not do what an annotator may expect of it; the message says what happened where."""


class ScreenMovedError(SimulationError):
    """The app refused a form because its state has moved on; a person would reload the page."""


class Browser:
    """One annotator's browser. Not shared between threads."""

    def __init__(self, url: str) -> None:
        """Prepare to visit the app at this address."""
        self._client = httpx.Client(base_url=url, follow_redirects=True, timeout=_TIMEOUT_S)
        self.last_request_s = 0.0
        """How long the last page took to come, with its redirects."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    def sign_in(self, link: str) -> None:
        """Open a one-time sign-in link and press its button.

        Raises:
            SimulationError: The link was used, has expired, or belongs to another installation.

        """
        path = urlsplit(link).path
        self._page("GET", path)
        self._page("POST", path)

    def open(self, path: str) -> AnnotatorPage:
        """Open a page."""
        return self._page("GET", path)

    def look_again(self, poll: str) -> AnnotatorPage:
        """Ask as the waiting screen does: an empty page, the same screen's progress, or the next screen."""
        return self._page("GET", poll, headers=_PARTIAL)

    def sign_out(self) -> None:
        """Sign out, which gives back what was handed out and not judged."""
        form = self.open("/annotate").form("/sign-out")
        if form is not None:
            self._page("POST", form.action, data=form.hidden)

    def send(self, form: PageForm, values: dict[str, str]) -> AnnotatorPage:
        """Send a form with what it carries by itself, and see the screen that it leads to."""
        return self._page("POST", form.action, data=form.hidden | values, headers=_PARTIAL)

    def _page(
        self,
        method: str,
        path: str,
        data: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> AnnotatorPage:
        # A link is a key: it does not belong in a message, even when it did not work.
        shown = "/sign-in/..." if path.startswith("/sign-in/") else path
        started = time.monotonic()
        try:
            answer = self._client.request(method, path, data=data, headers=headers)
        except httpx.HTTPError as error:
            msg = f"{method} {shown}: {type(error).__name__}: {error}"
            raise SimulationError(msg) from error
        self.last_request_s = time.monotonic() - started
        if answer.status_code == HTTPStatus.CONFLICT:
            msg = f"{method} {shown}: the app's state has moved on (409)."
            raise ScreenMovedError(msg)
        if answer.is_error:
            msg = f"{method} {shown}: status {answer.status_code}."
            raise SimulationError(msg)
        return read_page(answer.text)
