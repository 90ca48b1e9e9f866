"""Chat checkpoints: the models that responses are drawn from."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.vocabulary import Generation


class Checkpoint(Base):
    """One saved state of a chat model, known by its digests. The current one is the latest promoted."""

    __tablename__ = "checkpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    tokenizer_digest: Mapped[str] = mapped_column(String(64))
    template_digest: Mapped[str] = mapped_column(String(64))
    architecture: Mapped[str] = mapped_column(String(100))
    weight_bytes: Mapped[int] = mapped_column(BigInteger)
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkpoints.id"), default=None)
    """The checkpoint that was current when this one was promoted: the previous one of the recipe."""
    registered_at: Mapped[datetime] = mapped_column(default_factory=now)
    promoted_at: Mapped[datetime | None] = mapped_column(default=None, index=True)

    def id_of(self, generation: Generation) -> UUID:
        """Which checkpoint a generation samples from, where this one is the newest.

        The first one that is promoted has none before it, and then stands for the previous one, too.
        """
        return self.parent_id or self.id if generation is Generation.PREVIOUS else self.id
