"""Whatever people, models and machines write: no page contains markup of theirs that acts, loads or looks like ours."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from fastapi import FastAPI

from app.database import Database
from app.models import PersonRole
from app.settings import Settings
from app.web.markdown import render_markdown
from tests.app.installation import Texts, make_installation
from tests.conftest import Browser
from tests.routes import api_routes

SHORT = """"><script>evil()</script><img src=//evil.example onerror=evil()>'{{evil}}</title></textarea>"""
LONG = """</textarea></title></template><script>evil()</script> <img src=x onerror="evil()"> "onmouseover="evil()
<style>* { background: url(https://evil.example) }</style><form action="https://evil.example"><button>evil</button></form>
<div hx-get="https://evil.example" hx-trigger="load" data-hx-on:click="evil()" style="position: fixed">evil</div>
<svg onload=evil()><iframe srcdoc="<script>evil()</script>"></iframe><base href="https://evil.example">
<meta http-equiv="refresh" content="0; url=https://evil.example"><link rel="stylesheet" href="https://evil.example">

[one](javascript:evil()) [two](java&#x09;script:evil()) [three](data:text/html,evil) [four](vbscript:evil())
![beacon](https://evil.example/beacon.png) <https://evil.example/"onclick="evil()> [five]: javascript:evil()

```html"onclick="evil()
<script>evil()</script>
```

~~~<script>
evil()
~~~

| a | b |
|---|---|
| <img src=x onerror=evil()> | `<script>evil()</script>` |

{{ visitor.csrf_token }} {% raw %} \u202e\u2066 &lt;script&gt;evil()&lt;/script&gt;
"""
ACTIVE = {"script", "style", "iframe", "object", "embed", "base", "img", "video", "audio", "link", "meta"}
# Where text may stand as it is: nothing here is fetched or run.
TEXT_ATTRIBUTES = {"value", "title", "aria-label", "placeholder", "content", "alt"}


class Markup(HTMLParser):
    """Collects what a page's markup could do, beyond what our own templates write."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []

    def handle_starttag(  # noqa: D102 - HTMLParser's own name
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in ACTIVE and not self._is_ours(tag, values):
            self.problems.append(f"<{tag} {values}>")
        for name, value in values.items():
            if name.startswith("on") or name in {"style", "srcdoc", "formaction"} or "hx-on" in name:
                self.problems.append(f"<{tag} {name}={value}>")
            if "evil" in value and name not in TEXT_ATTRIBUTES and (tag, name) != ("a", "href"):
                self.problems.append(f"<{tag} {name}={value}>")
            if name in {"action", "hx-get", "hx-post", "src"} and not value.startswith("/"):
                self.problems.append(f"<{tag} {name}={value}>")
            if (
                name == "href"
                and ":" in value
                and not value.startswith(("https://evil.example", "data:image/svg+xml,"))
            ):
                self.problems.append(f"<{tag} {name}={value}>")

    @staticmethod
    def _is_ours(tag: str, values: dict[str, str]) -> bool:
        if tag in {"script", "link"}:
            address = values.get("src", values.get("href", ""))
            return address.startswith(("/static/", "data:image/svg+xml,"))
        return tag == "meta" and ("name" in values or "charset" in values or values.get("content") == "2")


def problems_of(html: str) -> list[str]:
    markup = Markup()
    markup.feed(html)
    markup.close()
    return markup.problems


def test_the_check_itself_finds_what_it_looks_for() -> None:
    assert len(problems_of(LONG)) >= 10
    assert problems_of(SHORT)
    assert problems_of('<script src="/static/app.js?v=1"></script><a href="https://evil.example">x</a>') == []


def test_markdown_keeps_text_and_drops_what_acts() -> None:
    html = render_markdown(LONG)
    assert problems_of(f"<div>{html}</div>") == []
    for kept in ("&lt;script&gt;evil()", "<table dir=", "<pre dir="):
        assert kept in html


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_page_contains_active_markup(
    app: FastAPI, database: Database, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    made = make_installation(database, settings, Texts(long=LONG, name=SHORT))
    people = [sign_in(role) for role in PersonRole if role is not PersonRole.ANNOTATOR]
    people.append(sign_in(PersonRole.ANNOTATOR, SHORT))
    shown = 0
    for route in api_routes(app.routes):
        for path in made.addresses(route.path) if "GET" in route.methods else []:
            for browser in people:
                for headers in ({}, {"HX-Request": "true", "HX-Request-Type": "partial"}):
                    answer = browser.get(path, headers=headers)
                    if answer.headers.get("content-type", "").startswith("text/html"):
                        assert problems_of(answer.text) == [], path
                        shown += "evil()" in answer.text
    assert shown > 50


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_was_typed_comes_back_as_text(
    database: Database, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    made = make_installation(database, settings)
    admin, trainer = sign_in(PersonRole.ADMIN), sign_in(PersonRole.TRAINER)
    bea, ann = sign_in(PersonRole.ANNOTATOR, "Bea"), sign_in(PersonRole.ANNOTATOR, "Ann")
    comparison = made.parameters["comparison_id"][0]
    batch = dict.fromkeys(("opens_at", "closes_at", "time_zone", "target_safety", "system_prompt", "curriculum"), LONG)
    answers = [
        admin.post("/admin/people", {"name": SHORT, "role": "reviewer"}),
        admin.post("/admin/people", {"name": SHORT, "role": "reviewer"}),
        admin.post("/admin/people", {"name": "x", "role": SHORT, SHORT: SHORT}),
        admin.post("/admin/tokens", {"name": SHORT, "scope": "worker"}),
        admin.post("/admin/guidelines", {"objective": "safety", "text": LONG * 20}),
        admin.post("/admin/batches/2", batch | {"temperature": [SHORT, "1"], "weight": [SHORT]}),
        trainer.post(
            "/training/runs", {"name": SHORT, "datasets": [SHORT], "learning_rate": LONG, "checkpoint": SHORT}
        ),
        bea.post(
            f"/annotate/comparisons/{comparison}/annotation", {"rating": SHORT, "rationale": LONG, "safety": SHORT}
        ),
        ann.post("/annotate/conversations", {"objective": "safety", "prompt": LONG * 20}),
        ann.post("/annotate/conversations", {"objective": SHORT, "prompt": LONG}),
        ann.client.post("/sign-in", data={"name": SHORT, "password": SHORT, "next": SHORT}),
        ann.get("/sign-in", params={"next": SHORT}),
        ann.get("/annotate", params={"objective": SHORT}),
        trainer.get(f"/datasets/{SHORT.replace('/', '')}"),
        trainer.get(f"/training/runs/{SHORT.replace('/', '')}"),
        trainer.get(f"/{SHORT}"),
    ]
    assert sum(400 <= answer.status_code < 500 for answer in answers) >= 12
    assert sum("evil()" in answer.text for answer in answers) >= 8
    for answer in answers:
        assert problems_of(answer.text) == [], answer.url
