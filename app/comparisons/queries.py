"""The SQL of the hand-out: which comparisons have an open place, and who holds one."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, exists, func, literal_column, select
from sqlalchemy.orm import Session

from app.models import Assignment, AssignmentState, Comparison, ComparisonState
from app.upserts import Upsert


def _open_to(*states: ComparisonState) -> Select[Comparison]:
    known = exists().where(
        Assignment.comparison_id == Comparison.id,
        Assignment.annotator_id == bindparam("annotator_id", type_=Uuid()),
        Assignment.state != AssignmentState.GIVEN_BACK,
    )
    return (
        select(Comparison)
        .where(
            Comparison.batch_id == bindparam("batch_id", type_=Uuid()),
            # Written out and not as a parameter: only then can the databases use the partial index.
            Comparison.open_places > literal_column("0"),
            Comparison.state.in_(states),
            ~known,
        )
        .order_by(Comparison.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Comparison)
        .execution_options(populate_existing=True)
    )


# Built once: building a statement costs more than running it.
_JUDGED_BEFORE = _open_to(ComparisonState.ANNOTATED)
_ANY = _open_to(ComparisonState.ANNOTATED, ComparisonState.READY)
_HOLD = Upsert(
    Assignment,
    ["comparison_id", "annotator_id"],
    lambda new: {"state": new.state, "held_until": new.held_until, "shown_at": new.shown_at},
)


def open_to(session: Session, annotator_id: UUID, batch_id: UUID, *, with_new: bool) -> Comparison | None:
    """The oldest comparison of a batch with a place that an annotator may take, locked.

    They may not have judged or skipped it before; what they gave back is old, and so comes first. Without
    ``with_new`` only those are looked at that somebody has judged already. On PostgreSQL rows that another
    transaction is handing out are passed over.
    """
    keys = {"annotator_id": annotator_id, "batch_id": batch_id}
    return session.scalars(_ANY if with_new else _JUDGED_BEFORE, keys).one_or_none()


def hold(session: Session, comparison_id: UUID, annotator_id: UUID, *, at: datetime, until: datetime) -> None:
    """Note an annotator's place, who has none at this comparison or has given it back."""
    keys = {"comparison_id": comparison_id, "annotator_id": annotator_id, "created_at": at}
    # What is handed out is shown at once.
    _HOLD.run(session, keys | {"state": AssignmentState.HELD, "held_until": until, "shown_at": at})


def assignment(session: Session, comparison_id: UUID, annotator_id: UUID) -> Assignment | None:
    """An annotator's place at a comparison, as it stands now."""
    return session.get(Assignment, (comparison_id, annotator_id), populate_existing=True)


def count_held(session: Session, comparison_id: UUID) -> int:
    """How many annotators hold a place at a comparison."""
    held = (Assignment.comparison_id == comparison_id, Assignment.state == AssignmentState.HELD)
    return session.scalar(select(func.count()).select_from(Assignment).where(*held)) or 0


def locked(session: Session, comparison_ids: Sequence[UUID], *, passes_over: bool) -> list[Comparison]:
    """Comparisons, locked in the order of their ids.

    Those that somebody else is changing are waited for, or passed over where the caller comes again.
    """
    return list(
        session.scalars(
            select(Comparison)
            .where(Comparison.id.in_(comparison_ids))
            .order_by(Comparison.id)
            .with_for_update(skip_locked=passes_over, of=Comparison)
            .execution_options(populate_existing=True)
        )
    )


def handed_to(session: Session, annotator_id: UUID) -> list[UUID]:
    """The comparisons that were handed to an annotator, who has not judged them yet."""
    return list(
        session.scalars(
            select(Assignment.comparison_id).where(
                Assignment.annotator_id == annotator_id,
                Assignment.state == AssignmentState.HELD,
                Assignment.held_until.is_not(None),
            )
        )
    )


def expired(session: Session, at: datetime, *, limit: int) -> list[tuple[UUID, UUID]]:
    """Comparison and annotator of the places whose time is over."""
    rows = session.execute(
        select(Assignment.comparison_id, Assignment.annotator_id)
        .where(Assignment.held_until < at)
        .order_by(Assignment.held_until)
        .limit(limit)
    )
    return [(comparison_id, annotator_id) for comparison_id, annotator_id in rows]
