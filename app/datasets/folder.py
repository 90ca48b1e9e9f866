"""Writes the folder of a dataset from what the database says: the same content gives the same bytes."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import card, left_out, queries
from app.datasets.parquet import WrittenFile, folder_writer
from app.datasets.rows import BatchMovedError, RowReader
from app.datasets.survey import Survey
from app.datasets.tally import Tally
from app.models import Batch
from contract.dataset import CARD_FILE, FORMAT_VERSION, MANIFEST_FILE, DatasetFile, Manifest, SplitRule
from contract.digests import sha256_of
from contract.vocabulary import LeftOut, Split


@dataclass(frozen=True, slots=True)
class Identity:
    """What a dataset is called and where it stands among the others."""

    name: str
    version: int
    parent: str | None
    frozen_at: datetime
    format_version: int = FORMAT_VERSION


def split_rule(batch: Batch) -> SplitRule:
    """How the held-out split of a batch is drawn."""
    return SplitRule(held_out_share=batch.held_out_share, held_out_max=batch.held_out_max, seed=batch.number)


@dataclass(frozen=True)
class FolderMaker:
    """Writes the folder of one dataset of a batch."""

    session: Session
    batch: Batch
    identity: Identity
    rules: left_out.Rules
    secret: str
    on_rows: Callable[[int], object] = lambda _count: None
    """Hears now and then how many more rows are written; may end the session's transaction."""

    def write(self, folder: Path, survey: Survey, sides: Mapping[UUID, Split]) -> tuple[Manifest, bytes]:
        """Fill an empty folder; gives the manifest and its bytes.

        Raises:
            BatchMovedError: The batch changed meanwhile.

        """
        checkpoints = queries.checkpoints(self.session)
        guidelines = queries.guidelines(self.session)
        reader = RowReader(self.session, self.batch, self.rules, self.secret, checkpoints, guidelines, self.on_rows)
        tally = Tally()
        with folder_writer(folder, format_version=self.identity.format_version) as writer:
            for split, row in reader.rows(survey.conversations, sides):
                writer.add(split, row)
                tally.add(split, row)
            written = writer.finish()
        for conversation_id, found in survey.conversations.items():
            if conversation_id in sides:
                tally.add_conversation(found.objective, sides[conversation_id], max(found.turns))
        left = _left_out(survey, sides)
        if tally.rows + left.total() != survey.comparisons:
            msg = f"Batch {self.batch.number} changed while it was being frozen."
            raise BatchMovedError(msg)
        manifest = Manifest(
            format_version=self.identity.format_version,
            name=self.identity.name,
            version=self.identity.version,
            parent=self.identity.parent,
            batches=(self.batch.number,),
            frozen_at=self.identity.frozen_at,
            margin_scheme=self.batch.margin_scheme,
            split_rule=split_rule(self.batch),
            comparisons=survey.comparisons,
            rows=tally.rows,
            counts=tally.counts(),
            left_out={reason: left[reason] for reason in LeftOut if left[reason]},
            checkpoints=tally.checkpoints(checkpoints.values()),
            guidelines=tally.guidelines(guidelines.values()),
            files=tuple(_dataset_file(folder, file) for file in written),
        )
        content = (manifest.model_dump_json(indent=2) + "\n").encode()
        (folder / MANIFEST_FILE).write_bytes(content)
        (folder / CARD_FILE).write_text(card.render(manifest, tally), encoding="utf-8", newline="\n")
        return manifest, content


def _left_out(survey: Survey, sides: Mapping[UUID, Split]) -> Counter[LeftOut]:
    """The reasons, with those added that only the split could know."""
    rows = sum(len(found.turns) for key, found in survey.conversations.items() if key not in sides)
    return survey.left_out + Counter({LeftOut.PROMPT_ON_BOTH_SIDES: rows})


def _dataset_file(folder: Path, file: WrittenFile) -> DatasetFile:
    return DatasetFile(
        path=file.path.relative_to(folder).as_posix(),
        objective=file.objective,
        split=file.split,
        rows=file.rows,
        bytes=file.path.stat().st_size,
        sha256=sha256_of(file.path),
    )
