"""How the sampling of a pair goes, said so that nothing shows which response is the faster one."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Response, ResponseDisplay, SamplingJob, WorkState
from contract.vocabulary import Side

_CHARACTERS_PER_WORD = 6
_WORDS_AT_A_TIME = 10
_TOKEN_CHARACTERS = 12


@dataclass(frozen=True)
class SamplingProgress:
    """What the waiting screen shows."""

    stage: str
    """``queued`` or ``writing``."""
    ahead: int
    """How many other comparisons are in the queue before this one."""
    words: int
    """Of both responses together, about."""
    text_a: str = ""
    text_b: str = ""
    """Both as far as the shorter one is, so that neither runs ahead; empty where they are shown only when complete."""

    @property
    def seen(self) -> str:
        """Changes whenever there is something new to show."""
        shown = f"{self.stage} {self.ahead} {self.words} {self.text_a} {self.text_b}"
        return hashlib.sha256(shown.encode()).hexdigest()[:_TOKEN_CHARACTERS]


def sampling_progress(session: Session, comparison_id: UUID, display: ResponseDisplay) -> SamplingProgress:
    """How far the responses to a prompt are."""
    job = session.execute(
        select(SamplingJob.state, SamplingJob.queued_at).where(SamplingJob.comparison_id == comparison_id)
    ).one()
    if job.state is WorkState.QUEUED:
        ahead = select(func.count(SamplingJob.id)).where(
            SamplingJob.state == WorkState.QUEUED, SamplingJob.queued_at < job.queued_at
        )
        return SamplingProgress("queued", ahead=session.scalar(ahead) or 0, words=0)
    texts = _texts(session, comparison_id)
    words = sum(map(len, texts.values())) // _CHARACTERS_PER_WORD
    words -= words % _WORDS_AT_A_TIME
    if display is not ResponseDisplay.AS_MADE:
        return SamplingProgress("writing", ahead=0, words=words)
    shown = min(map(len, texts.values()))
    return SamplingProgress("writing", ahead=0, words=words, text_a=texts[Side.A][:shown], text_b=texts[Side.B][:shown])


def _texts(session: Session, comparison_id: UUID) -> dict[Side, str]:
    rows = session.execute(select(Response.side, Response.text).where(Response.comparison_id == comparison_id))
    return dict(rows.all())
