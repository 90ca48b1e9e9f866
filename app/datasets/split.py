"""Draws the held-out split: by conversation, equal prompts on one side, the same result for the same batch."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from contract.dataset import SplitRule
from contract.vocabulary import Objective, Split

# A follow-up such as "Why?" or "Make it shorter, please" means nothing without its context: two conversations
# that share it share no example. If it counted, such words would in time tie most conversations together.
SELF_STANDING_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation with rows for a dataset."""

    conversation_id: UUID
    objective: Objective
    rows: int
    prompts: frozenset[str]
    """The keys of its prompts (`key_in_conversation`); the first prompt always has one."""


@dataclass(frozen=True, slots=True)
class Draw:
    """On which side each conversation is."""

    sides: dict[UUID, Split]
    on_both_sides: frozenset[UUID]
    """Conversations that no side can take, since earlier batches put their prompts on both."""


@dataclass(slots=True)
class _Group:
    """Conversations that hang together by equal prompts, and so go to one side."""

    members: list[Candidate] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    rows: Counter[Objective] = field(default_factory=Counter)


def prompt_key(prompt: str) -> str:
    """The hash under which equal prompts meet: compatibility forms, case and white space make no difference."""
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()


def normalise(prompt: str) -> str:
    """The form in which two prompts are compared."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def key_in_conversation(prompt: str, turn: int) -> str | None:
    """The key by which a turn's prompt ties conversations together; ``None`` for a follow-up that does not."""
    is_telling = turn == 1 or len(normalise(prompt)) >= SELF_STANDING_CHARACTERS
    return prompt_key(prompt) if is_telling else None


def draw(candidates: Iterable[Candidate], settled: Mapping[str, Split], rule: SplitRule) -> Draw:
    """Put every conversation on a side.

    ``settled`` says where earlier batches put prompts; those sides are kept even beyond the rule's limit.
    The order of the candidates makes no difference.
    """
    fixed: dict[Split, list[_Group]] = defaultdict(list)
    free: list[_Group] = []
    left_out: list[_Group] = []
    for group in _groups(candidates):
        sides = {settled[prompt] for prompt in group.prompts if prompt in settled}
        if not sides:
            free.append(group)
        elif len(sides) == 1:
            fixed[sides.pop()].append(group)
        else:
            left_out.append(group)
    test = fixed[Split.TEST] + _draw_held_out(free, fixed, rule)
    held_out = {member.conversation_id for group in test for member in group.members}
    kept = [*free, *fixed[Split.TRAIN], *fixed[Split.TEST]]
    return Draw(
        sides={
            member.conversation_id: Split.TEST if member.conversation_id in held_out else Split.TRAIN
            for group in kept
            for member in group.members
        },
        on_both_sides=frozenset(member.conversation_id for group in left_out for member in group.members),
    )


def _draw_held_out(free: Sequence[_Group], fixed: Mapping[Split, list[_Group]], rule: SplitRule) -> list[_Group]:
    """Take groups in an order that only the seed and the prompts decide, as long as they fit the limit."""
    if not rule.held_out_share or not rule.held_out_max:
        return []
    held = _total(fixed[Split.TEST])
    rows = _total(free) + _total(fixed[Split.TRAIN]) + held
    limits = {
        objective: min(rule.held_out_max, round(rule.held_out_share * count)) for objective, count in rows.items()
    }
    in_order = sorted(free, key=lambda group: _rank(group, rule.seed))
    drawn = []
    for group in in_order:
        if all(held[objective] + count <= limits[objective] for objective, count in group.rows.items()):
            drawn.append(group)
            held += group.rows
    for objective in sorted(rows):
        smallest = _smallest_that_leaves_some(in_order, drawn, objective, rows - held)
        if not held[objective] and smallest is not None:
            drawn.append(smallest)
            held += smallest.rows
    return drawn


def _smallest_that_leaves_some(
    in_order: Sequence[_Group], drawn: Sequence[_Group], objective: Objective, left: Mapping[Objective, int]
) -> _Group | None:
    """A group for an objective whose limit is smaller than any conversation: one is held out all the same."""
    taken = {id(group) for group in drawn}
    fitting = [
        group
        for group in in_order
        if group.rows[objective]
        and id(group) not in taken
        and all(count < left[objective_of] for objective_of, count in group.rows.items())
    ]
    return min(fitting, key=lambda group: group.rows[objective], default=None)


def _total(groups: Iterable[_Group]) -> Counter[Objective]:
    total: Counter[Objective] = Counter()
    for group in groups:
        total += group.rows
    return total


def _rank(group: _Group, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{min(group.prompts)}".encode()).digest()


def _groups(candidates: Iterable[Candidate]) -> list[_Group]:
    """Join conversations that share a prompt, also over several steps (union-find over the prompts)."""
    found = list(candidates)
    parents: dict[str, str] = {}

    def root(prompt: str) -> str:
        while (parent := parents.setdefault(prompt, prompt)) != prompt:
            # Halving the path on the way keeps later searches short.
            parents[prompt] = parents[parent]
            prompt = parents[prompt]
        return prompt

    for candidate in found:
        first, *others = candidate.prompts
        for other in others:
            parents[root(other)] = root(first)
    groups: dict[str, _Group] = defaultdict(_Group)
    for candidate in found:
        group = groups[root(next(iter(candidate.prompts)))]
        group.members.append(candidate)
        group.prompts |= candidate.prompts
        group.rows[candidate.objective] += candidate.rows
    return list(groups.values())
