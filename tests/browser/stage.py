"""The app on a port of this machine, with somebody behind the scenes who plays the model: for tests and pictures."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import uvicorn
from alembic import command
from playwright.sync_api import Browser, Page
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.annotation import queries
from app.batches import guidelines
from app.database import Database, alembic_config, connect
from app.main import create_app
from app.models import (
    Annotation,
    Batch,
    Comparison,
    ComparisonState,
    Person,
    PersonRole,
    Review,
    SamplingJob,
    Verdict,
    WorkState,
    now,
)
from app.settings import Settings
from contract.vocabulary import Objective, Side, Strength
from tests import factories

WIDE = {"width": 1366, "height": 768}


@dataclass
class Stage:
    """A running app with its database."""

    database: Database
    url: str

    def open_batch(self, **settings: object) -> None:
        """Begin the week."""
        with self.database.write() as session:
            factories.make_open_batch(session, **settings)

    def set_batch(self, **values: object) -> None:
        """Change the batch as no admin could."""
        with self.database.write() as session:
            batch = session.scalars(select(Batch)).one()
            for name, value in values.items():
                setattr(batch, name, value)

    def link(self, name: str, role: PersonRole = PersonRole.ANNOTATOR, *, has_read: bool = True) -> str:
        """A one-time sign-in link; most people have read the guidelines already."""
        with self.database.write() as session:
            person: Person = accounts.get_or_create_person(session, name, role)
            if has_read:
                for objective in Objective:
                    guideline = guidelines.current(session, objective)
                    queries.note_guideline_read(session, person.id, guideline.id, at=now())
            return f"{self.url}/sign-in/{accounts.issue_sign_in_link(session, person, hours=1)}"

    def sign_in(self, browser: Browser, name: str, **options: object) -> Page:
        """A window of somebody's own, who is signed in."""
        page = browser.new_context(viewport=WIDE, **options).new_page()  # type: ignore[arg-type]
        self.enter(page, name)
        return page

    def enter(self, page: Page, name: str, role: PersonRole = PersonRole.ANNOTATOR, *, has_read: bool = True) -> None:
        """Sign in by a link."""
        page.goto(self.link(name, role, has_read=has_read))
        page.get_by_role("button", name="Sign in").click()
        page.locator(".who .name").wait_for()

    def make_ready(self, pair: tuple[str, str], prompt: str | None = None) -> UUID:
        """Let both responses to a prompt arrive; without one, to the one that was asked last."""
        with self.database.write() as session:
            comparison = self._sampled(session, prompt)
            factories.make_ready(session, comparison, pair)
            return comparison.id

    def grow(self, a: str, b: str) -> None:
        """Let the worker report what it has so far."""
        with self.database.write() as session:
            comparison = self._sampled(session, None)
            session.refresh(comparison, ["responses"])
            for response, text in zip(comparison.responses, (a, b), strict=True):
                response.text = text
            # No worker holds it: all that the screen asks is whether it still waits in the queue.
            session.scalars(
                select(SamplingJob).where(SamplingJob.comparison_id == comparison.id)
            ).one().state = WorkState.DONE

    def fail(self) -> None:
        """Let both responses come out the same."""
        with self.database.write() as session:
            self._sampled(session, None).state = ComparisonState.EQUAL_RESPONSES

    def publish_guideline(self, objective: Objective, text: str) -> None:
        """Publish a new version."""
        with self.database.write() as session:
            guidelines.add_version(session, objective, text)

    def review(self, name: str, feedback: str) -> None:
        """Let a reviewer say something about somebody's last choice."""
        with self.database.write() as session:
            reviewer = accounts.get_or_create_person(session, "Rita", PersonRole.REVIEWER)
            annotation = session.scalars(
                select(Annotation)
                .join(Person, Person.id == Annotation.annotator_id)
                .where(Person.name == name)
                .order_by(Annotation.created_at.desc())
                .limit(1)
            ).one()
            review = Review(
                annotation_id=annotation.id,
                revision=annotation.revision,
                reviewer_id=reviewer.id,
                verdict=Verdict.REJECTED,
                feedback=feedback,
            )
            session.add(review)

    @staticmethod
    def _sampled(session: Session, prompt: str | None) -> Comparison:
        sampled = (
            select(Comparison)
            .join(SamplingJob, SamplingJob.comparison_id == Comparison.id)
            .where(Comparison.state == ComparisonState.SAMPLING)
            .order_by(SamplingJob.queued_at.desc())
        )
        if prompt is not None:
            sampled = sampled.where(Comparison.prompt == prompt)
        return session.scalars(sampled.limit(1)).one()


def annotations(on: Stage, name: str) -> list[Annotation]:
    """What somebody chose, the first one first."""
    with on.database.read() as session:
        return list(
            session.scalars(
                select(Annotation)
                .join(Person, Person.id == Annotation.annotator_id)
                .where(Person.name == name)
                .order_by(Annotation.created_at)
            )
        )


def judged(on: Stage, annotation: Annotation) -> tuple[str, Side, Strength]:
    """The prompt of an annotation, and what was chosen."""
    with on.database.read() as session:
        comparison = session.get_one(Comparison, annotation.comparison_id)
        session.refresh(comparison, ["responses"])
        chosen = next(row for row in comparison.responses if row.id == annotation.chosen_response_id)
        return comparison.prompt, chosen.side, annotation.strength


@contextmanager
def stage(folder: Path, port: int) -> Iterator[Stage]:
    """The app, migrated, without a batch."""
    url = f"http://127.0.0.1:{port}"
    settings = Settings(data_dir=folder, public_url=url, reconcile_every_s=0)
    command.upgrade(alembic_config(settings.database_url), "head")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    database = connect(settings.database_url)
    yield Stage(database, url)
    database.dispose()
    server.should_exit = True
    thread.join()
