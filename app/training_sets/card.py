"""Writes the card of a training set: what Hugging Face's loader reads, and what people want to know."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from contract.training_set import SetFilter, SetManifest
from contract.vocabulary import MARGINS, Objective, SafetyBin, Split, Strength


def render(manifest: SetManifest) -> str:
    """The card: YAML for programs, then Markdown for people."""
    lines = [
        *_front_matter(manifest),
        f"# {manifest.name}",
        "",
        (
            f"A training set for reward models, made with Preferably on {manifest.created_at:%Y-%m-%d}. "
            f"Digest of its definition: `{manifest.digest}`. `manifest.json` says all of this exactly."
        ),
        "",
        *_members(manifest),
        "## Margin",
        "",
        f"`margin` is m(r) of the ranking loss by the scheme `{manifest.definition.margin_scheme}`: "
        + ", ".join(
            f"{strength.replace('_', ' ')} {MARGINS[manifest.definition.margin_scheme][strength]:.3g}"
            for strength in Strength
        )
        + "; 0 for rows without a strength.",
        "",
        "## Filter",
        "",
        *(f"- {line}" for line in in_words(manifest.definition.keep)),
        "",
    ]
    return "\n".join(lines).rstrip() + "\n"


def in_words(keep: SetFilter) -> list[str]:
    """What a filter keeps, a sentence for each kind of label."""

    def named(kept: Iterable[StrEnum]) -> str:
        return ", ".join(value.replace("_", " ") for value in kept) or "all"

    unrated = "kept" if keep.keeps_unrated else "left out"
    objectives = named(one for one in Objective if one in keep.objectives)
    strengths = named(one for one in Strength if one in keep.strengths)
    bins = named(one for one in SafetyBin if one in keep.safety_bins)
    return [
        f"Objectives: {objectives}.",
        f"Strengths: {strengths}; external rows without a strength are {unrated}.",
        f"Safety bins: {bins}.",
    ]


def _front_matter(manifest: SetManifest) -> Iterator[str]:
    yield from ("---", f"pretty_name: {manifest.name}", "license: other", "license_name: to-be-decided")
    yield from ("tags:", "- preference", "- rlhf", "- reward-model")
    if manifest.files:
        yield from ("configs:", "- config_name: default", "  data_files:")
    for split in Split:
        if any(file.split is split for file in manifest.files):
            yield from (f"  - split: {split}", f"    path: {split}-*.parquet")
    yield from ("---", "")


def _members(manifest: SetManifest) -> Iterator[str]:
    yield from (
        "## Members",
        "",
        "| dataset | kind | train | test | filtered | held out elsewhere | sha256 of its manifest |",
        "|---|---|---:|---:|---:|---:|---|",
    )
    for member, count in zip(manifest.definition.members, manifest.counts, strict=True):
        yield (
            f"| {member.name} | {member.kind} | {count.train:,} | {count.test:,} | {count.filtered:,} "
            f"| {count.held_out_elsewhere:,} | `{member.manifest_sha256}` |"
        )
    yield from (
        "",
        (
            "`train` has only rows that no frozen dataset holds out. `test` has the held-out rows of the frozen "
            "datasets, which nothing may be trained on. External rows with a prompt that is held out are left out."
        ),
        "",
    )
