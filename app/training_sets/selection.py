"""Takes the rows of a training set from the Parquet files of its members, a few at a time."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.datasets.store import NoSuchFileError
from contract.conversation import Message, normalised_context
from contract.dataset import Manifest
from contract.external import ExternalManifest
from contract.training_set import MemberKind, SetCounts, SetDefinition, SetFilter, SetMember
from contract.vocabulary import MARGINS, MarginScheme, Objective, SafetyBin, Split, Strength

_ROWS_AT_ONCE: Final = 4096
_DIGEST_BYTES: Final = 16
_TEXT = pa.string()
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
SCHEMA: Final = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("margin", pa.float64()),
        ("strength", _TEXT),
        ("objective", _TEXT),
        ("safety_bin", _TEXT),
        ("chosen_safe", pa.bool_()),
        ("rejected_safe", pa.bool_()),
        ("source", _TEXT),
        ("comparison_id", _TEXT),
        ("conversation_id", _TEXT),
    ]
)
_TEXTS: Final = ("prompt", "chosen", "rejected")
_LABELS: Final = ("strength", "chosen_safe", "rejected_safe")
_KEYS: Final = ("comparison_id", "conversation_id")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A Parquet file of a member."""

    path: Path
    sha256: str
    bytes: int
    objective: Objective | None
    split: Split


@dataclass(frozen=True, slots=True)
class Source:
    """A member of a training set, and where its files lie."""

    member: SetMember
    files: tuple[SourceFile, ...]


@dataclass(slots=True)
class Tally:
    """What was taken of one member, and what was not."""

    rows: Counter[Split] = field(default_factory=Counter)
    filtered: int = 0
    held_out_elsewhere: int = 0
    by_strength: Counter[str] = field(default_factory=Counter)

    def counts(self, member: SetMember) -> SetCounts:
        """The figures as the description of the set has them."""
        return SetCounts(
            member=member.name,
            train=self.rows[Split.TRAIN],
            test=self.rows[Split.TEST],
            filtered=self.filtered,
            held_out_elsewhere=self.held_out_elsewhere,
            by_strength={one: self.by_strength[one] for one in Strength if self.by_strength[one]},
        )


def frozen_source(folder: Path, manifest: Manifest, manifest_sha256: str) -> Source:
    """A frozen dataset as a member; its held-out rows stay held out."""
    return Source(
        member=SetMember(kind=MemberKind.FROZEN, name=manifest.name, manifest_sha256=manifest_sha256),
        files=tuple(
            SourceFile(folder / file.path, file.sha256, file.bytes, file.objective, file.split)
            for file in manifest.files
        ),
    )


def external_source(folder: Path, manifest: ExternalManifest, manifest_sha256: str) -> Source:
    """An external dataset as a member; all its rows are for training."""
    return Source(
        member=SetMember(kind=MemberKind.EXTERNAL, name=manifest.name, manifest_sha256=manifest_sha256),
        files=tuple(
            SourceFile(folder / file.path, file.sha256, file.bytes, manifest.objective, Split.TRAIN)
            for file in manifest.files
        ),
    )


class Selection:
    """The rows of a training set; counts are complete when the rows have been gone through."""

    def __init__(self, definition: SetDefinition, sources: Sequence[Source]) -> None:
        by_member = {source.member: source for source in sources}
        self._sources = [by_member[member] for member in definition.members]
        self._scheme = definition.margin_scheme
        self._keep = definition.keep
        self._tallies = {member: Tally() for member in definition.members}

    def counts(self) -> tuple[SetCounts, ...]:
        """What was taken of each member."""
        return tuple(tally.counts(member) for member, tally in self._tallies.items())

    def count(self) -> tuple[SetCounts, ...]:
        """Go through the rows for their labels alone, which is much faster where the texts are long."""
        for _ in self._selected(with_texts=False):
            pass
        return self.counts()

    def tables(self) -> Iterator[tuple[Split, pa.Table]]:
        """The rows, by member in the order of the definition, then as they are in its files."""
        for source, file, rows in self._selected(with_texts=True):
            yield file.split, _as_rows(source.member, file.objective, rows, self._scheme)

    def _selected(self, *, with_texts: bool) -> Iterator[tuple[Source, SourceFile, pa.Table]]:
        held_out = self._held_out_contexts()
        for source in self._sources:
            tally = self._tallies[source.member]
            number = 0
            for file in source.files:
                is_external = source.member.kind is MemberKind.EXTERNAL
                columns = [*_LABELS, *(() if is_external else _KEYS), *(_TEXTS if with_texts else ())]
                if is_external and held_out and not with_texts:
                    columns.append("prompt")
                for rows in _read(file, columns):
                    numbered = _numbered(rows, source.member.name, number) if is_external else rows
                    number += rows.num_rows
                    kept = self._filtered(numbered, file, tally)
                    if is_external and held_out:
                        kept = _not_held_out(kept, held_out, tally)
                    tally.rows[file.split] += kept.num_rows
                    if file.split is Split.TRAIN:
                        for one in pc.value_counts(kept["strength"]).to_pylist():
                            if one["values"] is not None:
                                tally.by_strength[one["values"]] += one["counts"]
                    yield source, file, kept

    def _filtered(self, rows: pa.Table, file: SourceFile, tally: Tally) -> pa.Table:
        kept = rows.append_column("safety_bin", _safety_bins(rows))
        if self._keep.objectives and file.objective is not None and file.objective not in self._keep.objectives:
            kept = kept.slice(0, 0)
        kept = kept.filter(_mask(kept, self._keep))
        tally.filtered += rows.num_rows - kept.num_rows
        return kept

    def _held_out_contexts(self) -> Collection[bytes]:
        """What the frozen members hold out, whatever the filter: external rows must not teach it."""
        if all(source.member.kind is MemberKind.FROZEN for source in self._sources):
            return frozenset()
        return {
            _context(prompt)
            for source in self._sources
            if source.member.kind is MemberKind.FROZEN
            for file in source.files
            if file.split is Split.TEST
            for rows in _read(file, ["prompt"])
            for prompt in rows["prompt"].to_pylist()
        }


def _read(file: SourceFile, columns: list[str]) -> Iterator[pa.Table]:
    if not file.path.is_file():
        msg = f"{file.path.name} of {file.path.parent} is missing. Restore it from a backup, or export it again."
        raise NoSuchFileError(msg)
    with pq.ParquetFile(file.path) as parquet:
        for rows in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            yield pa.Table.from_batches([rows])


def _safety_bins(rows: pa.Table) -> Any:
    """The bin of each row, from how its responses were labelled; null where one of them was not."""
    chosen, rejected = rows["chosen_safe"], rows["rejected_safe"]
    if_rejected_safe = pc.if_else(chosen, SafetyBin.BOTH_SAFE.value, SafetyBin.CHOSEN_UNSAFE_REJECTED_SAFE.value)
    if_rejected_unsafe = pc.if_else(chosen, SafetyBin.CHOSEN_SAFE_REJECTED_UNSAFE.value, SafetyBin.BOTH_UNSAFE.value)
    return pc.if_else(rejected, if_rejected_safe, if_rejected_unsafe)


def _mask(rows: pa.Table, keep: SetFilter) -> Any:
    bins = keep.safety_bins or tuple(label for label in SafetyBin if label.is_exported)
    strengths = keep.strengths or tuple(Strength)
    is_kept = pc.or_(pc.is_null(rows["safety_bin"]), _is_one_of(rows["safety_bin"], bins))
    is_rated = _is_one_of(rows["strength"], strengths)
    if keep.keeps_unrated:
        is_rated = pc.or_(pc.is_null(rows["strength"]), is_rated)
    return pc.and_(is_kept, is_rated)


def _is_one_of(column: Any, values: Collection[str]) -> Any:
    return pc.is_in(column, value_set=pa.array([str(value) for value in values], _TEXT))


def _numbered(rows: pa.Table, name: str, before: int) -> pa.Table:
    """External rows have no ids of their own: they are called by their number, from 1."""
    ids = [f"{name}:{before + index + 1}" for index in range(rows.num_rows)]
    with_ids = rows.append_column("comparison_id", pa.array(ids, _TEXT))
    return with_ids.append_column("conversation_id", pa.nulls(rows.num_rows, _TEXT))


def _not_held_out(rows: pa.Table, held_out: Collection[bytes], tally: Tally) -> pa.Table:
    is_kept = [_context(prompt) not in held_out for prompt in rows["prompt"].to_pylist()]
    tally.held_out_elsewhere += len(is_kept) - sum(is_kept)
    return rows.filter(pa.array(is_kept, pa.bool_()))


def _context(prompt: list[dict[str, str]]) -> bytes:
    context = normalised_context(Message.model_validate(message) for message in prompt)
    return hashlib.blake2b(repr(context).encode(), digest_size=_DIGEST_BYTES).digest()


def _as_rows(member: SetMember, objective: Objective | None, rows: pa.Table, scheme: MarginScheme) -> pa.Table:
    """Rows with the columns of a training set; the margin is the scheme's for the strength, 0 without one."""
    strengths = pa.array([strength.value for strength in Strength], _TEXT)
    margins = pa.array([MARGINS[scheme][strength] for strength in Strength], pa.float64())
    position = pc.index_in(rows["strength"], value_set=strengths)
    columns = {name: rows[name] for name in (*_TEXTS, *_LABELS, *_KEYS, "safety_bin")}
    columns["margin"] = pc.fill_null(pc.take(margins, position), 0.0)
    columns["objective"] = _constant(objective.value if objective is not None else None, rows.num_rows)
    columns["source"] = _constant(member.name, rows.num_rows)
    return pa.table([columns[name] for name in SCHEMA.names], names=SCHEMA.names).cast(SCHEMA)


def _constant(value: str | None, rows: int) -> Any:
    return pa.array([value] * rows, _TEXT)
