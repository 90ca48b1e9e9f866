"""Writes the folder of a dataset from what the database says: the same content gives the same bytes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import card, left_out, queries
from app.datasets.parquet import WrittenFile, folder_writer
from app.datasets.rows import BatchMovedError, RowReader, pseudonym
from app.datasets.survey import Survey
from app.datasets.tally import Tally
from app.models import Batch
from contract.dataset import CARD_FILE, FORMAT_VERSION, MANIFEST_FILE, Changes, DatasetFile, Manifest, SplitRule
from contract.digests import sha256_of
from contract.vocabulary import LeftOut, Split


@dataclass(frozen=True, slots=True)
class Identity:
    """What a dataset is called and where it stands among the others."""

    name: str
    version: int
    parent: str | None
    frozen_at: datetime
    licence: str | None
    before: left_out.Rules | None = None
    """The rules of the parent."""
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
            changes=self._changes(survey),
            batches=(self.batch.number,),
            licence=self.identity.licence,
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
        rendered = card.render(manifest, tally).encode()
        (folder / CARD_FILE).write_bytes(rendered)
        manifest = manifest.model_copy(update={"card_sha256": hashlib.sha256(rendered).hexdigest()})
        content = manifest.to_bytes()
        (folder / MANIFEST_FILE).write_bytes(content)
        return manifest, content

    def _changes(self, survey: Survey) -> Changes | None:
        before = self.identity.before
        if before is None:
            return None
        return Changes(
            excluded_annotators=self._pseudonyms(self.rules.excluded - before.excluded),
            included_annotators=self._pseudonyms(before.excluded - self.rules.excluded),
            rows_removed=survey.removed,
            rows_added=survey.added,
        )

    def _pseudonyms(self, people: AbstractSet[UUID]) -> tuple[str, ...]:
        return tuple(sorted(pseudonym(self.secret, person_id) for person_id in people))


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
