"""What the workspace keeps without a button being pressed: drafts, first looks, guidelines that were read."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import drafts, queries
from app.annotation.forms import DraftForm
from app.comparisons import handout
from app.errors import NotFoundError
from app.models import DraftKind, Guideline, Person, now


def keep(session: Session, annotator: Person, form_id: UUID, form: DraftForm, *, minutes: float) -> None:
    """Keep what is in a form, unless it was sent meanwhile: a late draft must not hide what was said.

    Raises:
        NotFoundError: The draft is of a judgement, and the annotator has no such comparison.

    """
    if form.kind is DraftKind.JUDGEMENT:
        held = queries.locked_held(session, annotator.id, form_id)
        if held is None:
            msg = "There is no such comparison."
            raise NotFoundError(msg)
        handout.keep(held.assignment, at=now(), minutes=minutes)
        annotation = queries.annotation_of(session, form_id, annotator.id)
        if form.revision != (annotation.revision if annotation is not None else 0):
            return
    elif queries.comparison(session, form_id) is not None:
        return
    drafts.keep(session, annotator, form_id, form.kind, form.fields)


def note_look(session: Session, annotator: Person, comparison_id: UUID) -> None:
    """Start the clock of a comparison: its annotator sees both responses from now on. Only the first look counts."""
    queries.mark_shown(session, comparison_id, annotator.id, at=now())


def note_guideline_read(session: Session, annotator: Person, guideline_id: UUID) -> None:
    """Note that an annotator has read a version of a guideline.

    Raises:
        NotFoundError: There is no such version.

    """
    if session.get(Guideline, guideline_id) is None:
        msg = "There is no such guideline."
        raise NotFoundError(msg)
    queries.note_guideline_read(session, annotator.id, guideline_id, at=now())
