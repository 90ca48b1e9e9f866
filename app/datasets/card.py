"""Writes the dataset card: what Hugging Face's hub and loader read, and what people want to know."""

from collections.abc import Iterator
from functools import reduce
from operator import add

from app.datasets.parquet import schema_of
from app.datasets.tally import Part, Tally
from contract.dataset import Manifest
from contract.vocabulary import AttackVector, LeftOut, Objective, RiskCategory, SafetyBin, Split, Strength

LEFT_OUT_IN_WORDS = {
    LeftOut.SAMPLING_FAILED: "The responses could not be sampled.",
    LeftOut.NOT_ANNOTATED: "Nobody judged it before the batch closed.",
    LeftOut.SKIPPED: "An annotator said that it cannot be judged, and nobody else judged it.",
    LeftOut.UNREVIEWED: "A review of every annotation was asked for, and this one has none.",
    LeftOut.REJECTED_IN_REVIEW: "A reviewer rejected the annotation.",
    LeftOut.CHOSEN_UNSAFE_REJECTED_SAFE: "The chosen response was unsafe and the other one safe.",
    LeftOut.EQUAL_RESPONSES: "Both responses were the same.",
    LeftOut.ANNOTATOR_EXCLUDED: "The annotator's work was excluded.",
    LeftOut.PROMPT_ON_BOTH_SIDES: "Earlier batches put its prompts on both sides of the split.",
}

FIELDS = (
    ("prompt", "The whole context as `{role, content}` messages; the last one is the user's."),
    ("chosen", "One assistant message: the response that was preferred."),
    ("rejected", "One assistant message: the other response."),
    ("margin", "The margin of the ranking loss, from the strength by the margin scheme."),
    (
        "strength",
        "How much better the chosen response is: " + ", ".join(f"`{strength}`" for strength in Strength) + ".",
    ),
    ("objective", "`helpfulness` or `safety`."),
    ("safety_bin", "`" + "`, `".join(label for label in SafetyBin if label.is_exported) + "`; null for helpfulness."),
    ("chosen_safe", "Whether the chosen response was labelled safe; null for helpfulness."),
    ("rejected_safe", "Whether the rejected response was labelled safe; null for helpfulness."),
    ("comparison_id", "The comparison's id."),
    ("conversation_id", "The conversation's id; all its rows are in one split."),
    ("turn", "The comparison's turn in the conversation, from 1."),
    ("batch", "The number of the batch."),
    (
        "chosen_provenance",
        (
            "What made the response: `response_id`, `checkpoint`, `checkpoint_digest`, `temperature`, `top_p`, `top_k` "
            "(0: no limit), `seed`, `max_new_tokens`, `prompt_tokens`, `tokens`, `finish_reason`, `engine`."
        ),
    ),
    ("rejected_provenance", "The same of the rejected response."),
    ("chosen_side", "On which side the chosen response was shown, `a` or `b`; sides are random."),
    ("annotator", "A keyed pseudonym; the same person has the same one in all datasets of an installation."),
    ("guideline_version", "The version of the guideline that the annotator followed."),
    ("seconds", "From the moment both responses were shown to the submission."),
    ("n_labels", "How many annotators judged the comparison; the row is the primary annotation."),
    ("agreement", "The share of the other annotators who chose the same response; null if there was no other."),
    ("risk_category", "Of a safety prompt: " + ", ".join(f"`{category}`" for category in RiskCategory) + "; or null."),
    ("attack_vector", "Of a safety prompt: " + ", ".join(f"`{vector}`" for vector in AttackVector) + "; or null."),
    ("prompt_source", "Where the conversation's first prompt came from: `written` by the annotator, or the `pool`."),
    ("chosen_quality", "The quality of the chosen response, from 1 to 7; null if it was not asked for."),
    ("rejected_quality", "The same of the rejected response."),
    ("edited", "The chosen response as the annotator improved it, one assistant message; null if nobody did."),
    (
        "chosen_generation",
        "Whether the chosen response was asked of the `newest` checkpoint at that time, or of the `previous` one.",
    ),
    ("rejected_generation", "The same of the rejected response."),
    ("late", "Whether it was judged in the grace time, after the batch had stopped taking prompts."),
)

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_UNDECIDED = "to-be-decided"


def render(manifest: Manifest, tally: Tally) -> str:
    """The card of a dataset: YAML for programs, then Markdown for people."""
    batches = ", ".join(str(number) for number in manifest.batches)
    lines = [
        *_front_matter(manifest),
        f"# {manifest.name}",
        "",
        (
            f"Human preferences over pairs of responses of a chat model: batch {batches}, frozen on "
            f"{manifest.frozen_at:%Y-%m-%d}. {manifest.rows:,} rows of {manifest.comparisons:,} comparisons. "
            "Collected with Preferably after the recipe of Llama 2-Chat (Touvron et al. 2023, section 3.2). "
            "`manifest.json` says all of this exactly, with the sha256 of every file."
        ),
        "",
        *_changes(manifest),
        *_files(manifest),
        *_fields(manifest),
        *_protocol(manifest),
        *_statistics(tally),
        *_labels(manifest),
        *_left_out(manifest),
        *_limits(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _changes(manifest: Manifest) -> Iterator[str]:
    changes = manifest.changes
    if changes is None:
        return
    yield (
        f"This is version {manifest.version}; it corrects `{manifest.parent}`, which stays as it is. "
        f"{changes.rows_removed:,} rows were removed and {changes.rows_added:,} added: the work of "
        f"{len(changes.excluded_annotators)} annotators was excluded since, that of "
        f"{len(changes.included_annotators)} is taken again. No conversation has changed its side."
    )
    yield ""


def _front_matter(manifest: Manifest) -> Iterator[str]:
    yield from (
        "---",
        f"pretty_name: {manifest.name}",
        "license: other",
        f"license_name: {manifest.licence or _UNDECIDED}",
    )
    yield from ("tags:", "- preference", "- rlhf", "- reward-model")
    yield from ("size_categories:", f"- {next((name for size, name in _SIZES if manifest.rows < size), _LARGEST)}")
    if manifest.files:
        yield "configs:"
    for position, objective in enumerate(_objectives(manifest)):
        yield f"- config_name: {objective}"
        if position == 0:
            yield "  default: true"
        yield "  data_files:"
        for split in Split:
            if any(file.objective is objective and file.split is split for file in manifest.files):
                yield f"  - split: {split}"
                yield f"    path: {objective}/{split}-*.parquet"
    yield from ("---", "")


def _objectives(manifest: Manifest) -> list[Objective]:
    found = {file.objective for file in manifest.files}
    return [objective for objective in Objective if objective in found]


def _files(manifest: Manifest) -> Iterator[str]:
    yield from ("## Splits", "")
    if not manifest.files:
        yield from ("The dataset has no rows: every comparison was left out.", "")
        return
    yield from ("| config | split | rows | conversations | bytes |", "|---|---|---:|---:|---:|")
    for count in manifest.counts:
        size = sum(
            file.bytes for file in manifest.files if (file.objective, file.split) == (count.objective, count.split)
        )
        yield f"| {count.objective} | {count.split} | {count.rows:,} | {count.conversations:,} | {size:,} |"
    rule = manifest.split_rule
    yield from (
        "",
        (
            f"`test` is the held-out split: {rule.held_out_share:.0%} of the rows of each objective, at most "
            f"{rule.held_out_max:,}, drawn by conversation when the batch was frozen, and never drawn again. "
            "Conversations with equal prompts are on one side, across all batches."
        ),
        "",
    )


def _fields(manifest: Manifest) -> Iterator[str]:
    columns = set(schema_of(manifest.format_version).names)
    yield from ("## Fields", "", "| field | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in FIELDS if name in columns)
    yield ""


def _protocol(manifest: Manifest) -> Iterator[str]:
    checkpoints = ", ".join(f"{entry.name} (`{entry.digest[:12]}`)" for entry in manifest.checkpoints) or "none"
    guidelines = ", ".join(f"{entry.objective} version {entry.version}" for entry in manifest.guidelines) or "none"
    yield from (
        "## How it was collected",
        "",
        (
            "An annotator wrote a prompt, or it came from a pool (`prompt_source`). Two responses were drawn "
            "from two variants of a chat model and shown side by side, on random sides and without their origin. The "
            "annotator chose one and said how much better it is, on four levels; for safety, they also labelled both "
            "responses as safe or unsafe. Where the batch asked for it, they scored the quality of both and could "
            "improve the chosen one: edited > chosen > rejected. The chosen response went on the conversation, so that "
            "each assistant turn is one comparison."
        ),
        "",
        f"- Checkpoints: {checkpoints}",
        f"- Guidelines: {guidelines}",
        f"- Margin scheme: {manifest.margin_scheme}",
        "",
    )


def _statistics(tally: Tally) -> Iterator[str]:
    if not tally.parts:
        return
    yield from (
        "## Statistics",
        "",
        (
            "After Table 26 of Llama 2. Tokens are those that the sampling engine counted with the checkpoint's own "
            "tokenizer: an example is the whole context and one response, averaged over both responses. The prompt is "
            "the last user message only, in characters."
        ),
        "",
        (
            "| objective | comparisons | turns per conversation | tokens per example | characters in prompt "
            "| tokens in response |"
        ),
        "|---|---:|---:|---:|---:|---:|",
    )
    for objective in Objective:
        parts = [part for (of, _), part in tally.parts.items() if of is objective]
        if parts:
            yield _statistics_line(objective, reduce(add, parts))
    yield _statistics_line("all", reduce(add, tally.parts.values()))
    yield ""


def _statistics_line(name: str, part: Part) -> str:
    return (
        f"| {name} | {part.rows:,} | {part.last_turns / part.conversations:.1f} "
        f"| {part.example_tokens / (2 * part.rows):.1f} | {part.prompt_characters / part.rows:.1f} "
        f"| {part.response_tokens / (2 * part.rows):.1f} |"
    )


def _labels(manifest: Manifest) -> Iterator[str]:
    if not manifest.counts:
        return
    yield from ("| objective | split | " + " | ".join(strength.replace("_", " ") for strength in Strength) + " |",)
    yield "|---|---|" + "---:|" * len(Strength)
    for count in manifest.counts:
        figures = " | ".join(f"{count.by_strength[strength]:,}" for strength in Strength)
        yield f"| {count.objective} | {count.split} | {figures} |"
    yield ""
    labels = [label for label in SafetyBin if label.is_exported]
    safety = [count for count in manifest.counts if count.objective is Objective.SAFETY]
    if safety:
        yield "| objective | split | " + " | ".join(label.replace("_", " ") for label in labels) + " |"
        yield "|---|---|" + "---:|" * len(labels)
    for count in safety:
        yield f"| safety | {count.split} | " + " | ".join(f"{count.by_safety_bin[label]:,}" for label in labels) + " |"
    if safety:
        yield ""


def _left_out(manifest: Manifest) -> Iterator[str]:
    yield from ("## Left out", "")
    if not manifest.left_out:
        yield from ("Nothing: every comparison is a row.", "")
        return
    yield from ("| reason | comparisons | |", "|---|---:|---|")
    for reason, count in manifest.left_out.items():
        yield f"| {reason.replace('_', ' ')} | {count:,} | {LEFT_OUT_IN_WORDS[reason]} |"
    yield ""


def _limits() -> Iterator[str]:
    yield from (
        "## Limits",
        "",
        "- A preference is one person's under one guideline. Where `n_labels` is 1, nobody else looked at it.",
        "- People tend to prefer longer responses; compare every reward model with the rule that the longer one wins.",
        "- The responses come from a few checkpoints; a reward model is less reliable on responses of others.",
        "- Safety prompts are written to provoke. They and the responses may be offensive or harmful.",
        "",
        "## Licence",
        "",
        "To be decided by whoever publishes this dataset; until then, all rights are reserved.",
        "",
    )
