"""Writes the datasets that are due: settled content first, then files, then one short transaction makes them exist.

Nothing here holds a lock for long, so that annotators go on working while a million rows are written. Each part may
be repeated: a draw that was cut off is drawn again with the same result, and drafts of a killed process are removed.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.accounts import audit
from app.database import Database, end_reading
from app.datasets import queries, service, split, store
from app.datasets import survey as surveying
from app.datasets.folder import FolderMaker, Identity, split_rule
from app.datasets.remote_store import RemoteStore
from app.errors import ConflictError
from app.models import Batch, BatchState, Freeze, PreferenceDataset, now
from app.settings import Settings
from contract.dataset import Manifest
from contract.vocabulary import Split

_LOG = structlog.get_logger(__name__)
_LEASE = timedelta(seconds=60)
_RENEW_S = 5.0
_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=10)
# So few that no writer of an SQLite database waits long for its turn.
_SETTLED_AT_ONCE = 1000


class LeaseLostError(ConflictError):
    """The process was silent for so long that another one took the freeze over."""


def request(session: Session, batch: Batch, *, at: datetime) -> Freeze:
    """Settle of what a batch's next dataset is made; the caller has locked the batch. `work_off` writes it."""
    previous = queries.latest_version(session, batch.id)
    freeze = Freeze(
        batch_id=batch.id,
        version=previous.version + 1 if previous is not None else 1,
        frozen_at=at,
        excluded_annotators=[person_id.hex for person_id in queries.excluded_annotators(session)],
        next_attempt_at=at,
    )
    session.add(freeze)
    session.flush()
    return freeze


def work_off(database: Database, settings: Settings, at: datetime) -> int:
    """Write every dataset that is due, one after the other, and say how many.

    Every process may call this at any time: one writes, the others find nothing to do.

    Raises:
        Exception: What the first failure was; it is noted, and the others were tried all the same.

    """
    written = 0
    failures: list[Exception] = []
    while (work := _take(database, settings, at)) is not None:
        try:
            work.carry_out()
            written += 1
        except Exception as error:  # noqa: BLE001 - one dataset in trouble must not keep the others back
            _LOG.error("freeze_failed", batch=work.batch_number, error=str(error))
            work.give_up(error)
            failures.append(error)
    if failures:
        raise failures[0]
    return written


def is_due(database: Database, at: datetime) -> bool:
    """Whether a dataset is to be written, and nobody writes one."""
    with database.read() as session:
        return _next(queries.pending_freezes(session), at) is not None


def _next(pending: list[Freeze], at: datetime) -> Freeze | None:
    """One dataset is written at a time: the draw of one must see the prompts that the other settles."""
    if any(freeze.holder is not None and freeze.next_attempt_at > at for freeze in pending):
        return None
    due = [freeze for freeze in pending if freeze.next_attempt_at <= at]
    return min(due, key=lambda freeze: (freeze.attempts, freeze.frozen_at, freeze.batch_id), default=None)


def _take(database: Database, settings: Settings, at: datetime) -> "_Work | None":
    """Look without a lock, which is all there is to do nearly always; then lock, look again, and take the lease."""
    if not is_due(database, at):
        return None
    with database.write() as session:
        freeze = _next(queries.locked_freezes(session), at)
        if freeze is None:
            return None
        freeze.holder = secrets.token_hex(16)
        freeze.next_attempt_at = max(at, now()) + _LEASE
        freeze.attempts += 1
        freeze.rows_written = freeze.rows_expected = 0
        batch = session.get_one(Batch, freeze.batch_id)
        return _Work(database, settings, freeze, freeze.holder, batch.number, began_at=at)


@dataclass
class _Work:
    """The writing of one dataset by this process."""

    database: Database
    settings: Settings
    freeze: Freeze
    holder: str
    batch_number: int
    began_at: datetime
    _renewed: float = field(default_factory=time.monotonic)

    def carry_out(self) -> None:
        """Draw, write, and make the dataset exist."""
        with self.database.read() as session:
            batch = session.get_one(Batch, self.freeze.batch_id)
            rules = service.rules_of(batch, map(UUID, self.freeze.excluded_annotators))
            parent = queries.latest_version(session, batch.id)
            before = service.before_of(session, batch, parent.id if parent is not None else None)
            survey = surveying.survey(session, batch, rules, before=before)
            self._renew(rows_expected=sum(len(found.turns) for found in survey.conversations.values()))
            sides = self._settle_sides(session, batch, survey)
            identity = Identity(
                name=_name(batch, self.freeze.version),
                version=self.freeze.version,
                parent=parent.name if parent is not None else None,
                frozen_at=self.freeze.frozen_at,
                licence=self.settings.dataset_licence,
                before=before,
            )
            target = self.settings.datasets_root / identity.name
            store.remove_drafts(target)
            secret = self.settings.pseudonym_secret.get_secret_value()
            maker = FolderMaker(session, batch, identity, rules, secret, self._progress(session))
            with store.draft(target) as draft:
                manifest, content = maker.write(draft.folder, survey, sides)
                end_reading(session)
                draft.sync()
                if self.settings.dataset_store:
                    RemoteStore(self.settings.dataset_store).put(draft.folder, manifest)
                self._make_exist(draft, manifest, content, parent)

    def give_up(self, error: Exception) -> None:
        """Note why it failed, and when to try again."""
        wait = min(_FIRST_WAIT * 2 ** min(self.freeze.attempts, 10), _LONGEST_WAIT)
        with self.database.write() as session:
            freeze = queries.held_freeze(session, self.freeze.batch_id, self.holder)
            if freeze is not None:
                freeze.holder = None
                freeze.error = f"{type(error).__name__}: {error}"
                freeze.next_attempt_at = max(self.began_at, now()) + wait

    def _settle_sides(self, session: Session, batch: Batch, survey: surveying.Survey) -> Mapping[UUID, Split]:
        """Draw the split, and settle it for these conversations and prompts for ever, some at a time.

        A process that is killed in between has settled a part of the draw. The next one draws the same: what is
        settled counts first, and the others are taken in the same order up to the same limit.
        """
        candidates = list(survey.candidates())
        settled = queries.settled_prompts(session, {prompt for one in candidates for prompt in one.prompts})
        end_reading(session)
        drawn = split.draw(candidates, settled, split_rule(batch))
        fresh = {
            prompt: drawn.sides[candidate.conversation_id]
            for candidate in candidates
            if candidate.conversation_id in drawn.sides
            for prompt in candidate.prompts
            if prompt not in settled
        }
        for chunk in queries.chunks(sorted(fresh.items()), _SETTLED_AT_ONCE):
            self._write(partial(queries.settle_prompts, batch_id=batch.id, sides=chunk))
        for side in Split:
            on_side = sorted(conversation for conversation, one in drawn.sides.items() if one is side)
            for some in queries.chunks(on_side, _SETTLED_AT_ONCE):
                self._write(partial(queries.set_splits, conversations=some, split=side))
        return drawn.sides

    def _make_exist(
        self, draft: store.Draft, manifest: Manifest, content: bytes, parent: PreferenceDataset | None
    ) -> None:
        """The one moment in which the dataset appears: in the store, in the database, and as the batch's state.

        The folder comes first. If the commit fails after it, the next attempt replaces it by the same bytes.
        """

        def make(session: Session) -> None:
            dataset = PreferenceDataset(
                name=manifest.name,
                batch_id=self.freeze.batch_id,
                version=manifest.version,
                manifest_sha256=hashlib.sha256(content).hexdigest(),
                manifest=manifest.model_dump(mode="json"),
                rows=manifest.rows,
                frozen_at=manifest.frozen_at,
                parent_id=parent.id if parent is not None else None,
                excluded_annotators=self.freeze.excluded_annotators,
            )
            session.add(dataset)
            batch = session.get_one(Batch, self.freeze.batch_id)
            batch.state = BatchState.FROZEN
            session.delete(session.get_one(Freeze, self.freeze.batch_id))
            action = "batch.frozen" if parent is None else "dataset.revised"
            audit.record(session, action, f"batch {batch.number}", dataset=dataset.name, rows=dataset.rows)
            session.flush()
            draft.publish()

        self._write(make)

    def _progress(self, session: Session) -> Callable[[int], None]:
        """Counts rows, renews the lease, and ends the reading transaction, which would keep the database's log long."""
        written = 0

        def count(rows: int) -> None:
            nonlocal written
            written += rows
            end_reading(session)
            if time.monotonic() - self._renewed > _RENEW_S:
                self._renew(rows_written=written)

        return count

    def _renew(self, **noted: int) -> None:
        def renew(session: Session) -> None:
            freeze = session.get_one(Freeze, self.freeze.batch_id)
            freeze.next_attempt_at = max(self.began_at, now()) + _LEASE
            for name, value in noted.items():
                setattr(freeze, name, value)

        self._write(renew)

    def _write(self, change: Callable[[Session], object]) -> None:
        """Change something in a transaction of its own, if the freeze is still ours.

        Raises:
            LeaseLostError: It is not.

        """
        with self.database.write() as session:
            if queries.held_freeze(session, self.freeze.batch_id, self.holder) is None:
                msg = f"Another process has taken over the freeze of batch {self.batch_number}."
                raise LeaseLostError(msg)
            change(session)
        self._renewed = time.monotonic()


def _name(batch: Batch, version: int) -> str:
    return f"batch-{batch.number:03d}" + (f"-v{version}" if version > 1 else "")
