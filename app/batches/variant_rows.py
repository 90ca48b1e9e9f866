"""What the admin's pages show of a batch's model variants: their settings, and what they sample from."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.batches import queries
from app.models import Batch, BatchVariant
from contract.vocabulary import Generation


@dataclass(frozen=True)
class VariantRow:
    """A model variant with its checkpoint's name."""

    variant: BatchVariant
    checkpoint: str
    """Empty until the batch opens."""


@dataclass(frozen=True)
class VariantRows:
    """The model variants of a batch."""

    rows: list[VariantRow]

    @property
    def pinned(self) -> dict[Generation, str]:
        """The names of the checkpoints that the batch samples from, by generation; none before it opens."""
        found = {row.variant.generation: row.checkpoint for row in self.rows if row.checkpoint}
        return {generation: found[generation] for generation in Generation if generation in found}

    @property
    def stand_in(self) -> str:
        """The name of the newest checkpoint where it stands in for a previous one that there is not; else nothing."""
        newest = self.pinned.get(Generation.NEWEST, "")
        return newest if self.pinned.get(Generation.PREVIOUS) == newest else ""


def variant_rows(session: Session, batch: Batch) -> VariantRows:
    """The model variants of a batch, with the names of their checkpoints."""
    names: dict[UUID, str] = queries.checkpoint_names(session, batch.id)
    return VariantRows(
        [
            VariantRow(
                variant=variant,
                checkpoint=names.get(variant.checkpoint_id, "") if variant.checkpoint_id is not None else "",
            )
            for variant in queries.variants(session, batch.id)
        ]
    )
