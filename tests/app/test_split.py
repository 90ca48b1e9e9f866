"""The held-out split: equal prompts and whole conversations on one side, for ever, whatever comes in which order."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.datasets.split import Candidate, draw, key_in_conversation, prompt_key
from contract.dataset import SplitRule
from contract.vocabulary import Objective, Split

LONG = "Please write a letter to my landlord about the heating that has not worked since Monday morning."


def candidate(number: int, prompts: str, rows: int = 1, objective: Objective = Objective.HELPFULNESS) -> Candidate:
    return Candidate(
        conversation_id=UUID(int=number),
        objective=objective,
        rows=rows,
        prompts=frozenset(prompt_key(prompt) for prompt in prompts),
    )


def rule(share: float = 0.2, most: int = 1000, seed: int = 1) -> SplitRule:
    return SplitRule(held_out_share=share, held_out_max=most, seed=seed)


ALPHABET = "abcdefghijklmnopqrstuvwxyz"
CANDIDATES = st.lists(
    st.tuples(
        st.text(ALPHABET, min_size=1, max_size=3), st.integers(min_value=1, max_value=6), st.sampled_from(Objective)
    ),
    min_size=1,
    max_size=30,
).map(lambda found: [candidate(number, *fields) for number, fields in enumerate(found)])
SETTLED = st.dictionaries(st.sampled_from(ALPHABET).map(prompt_key), st.sampled_from(Split), max_size=6)
RULES = st.builds(rule, st.floats(min_value=0, max_value=1), st.integers(min_value=0, max_value=50), st.integers(0, 10))


@given(CANDIDATES, SETTLED, RULES)
def test_no_prompt_is_on_both_sides_and_settled_sides_stay(
    candidates: list[Candidate], settled: dict[str, Split], rule: SplitRule
) -> None:
    drawn = draw(candidates, settled, rule)
    sides = dict(settled)
    for found in candidates:
        if found.conversation_id not in drawn.on_both_sides:
            for prompt in found.prompts:
                assert (
                    sides.setdefault(prompt, drawn.sides[found.conversation_id]) is drawn.sides[found.conversation_id]
                )
    assert drawn.sides.keys() | drawn.on_both_sides == {found.conversation_id for found in candidates}
    assert not drawn.sides.keys() & drawn.on_both_sides


@given(CANDIDATES, SETTLED, RULES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_makes_no_difference(
    candidates: list[Candidate], settled: dict[str, Split], rule: SplitRule, random: object
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert draw(shuffled, settled, rule) == draw(candidates, settled, rule)


@given(CANDIDATES, RULES)
def test_the_limit_holds_except_for_the_one_conversation_that_there_must_be(
    candidates: list[Candidate], rule: SplitRule
) -> None:
    drawn = draw(candidates, {}, rule)
    for objective in Objective:
        of_it = [found for found in candidates if found.objective is objective]
        rows = sum(found.rows for found in of_it)
        held_out = [found for found in of_it if drawn.sides[found.conversation_id] is Split.TEST]
        held_rows = sum(found.rows for found in held_out)
        limit = min(rule.held_out_max, round(rule.held_out_share * rows))
        if not rule.held_out_share or not rule.held_out_max:
            assert not held_out
        elif held_rows > limit:
            # Then these are one group: no smaller set could have been held out.
            assert held_rows < rows


@given(st.integers(2, 60), st.integers(1, 5), st.floats(min_value=0.001, max_value=0.5))
def test_of_two_conversations_or_more_at_least_one_is_held_out(conversations: int, rows: int, share: float) -> None:
    candidates = [
        Candidate(UUID(int=number), Objective.SAFETY, rows, frozenset({prompt_key(f"prompt {number}")}))
        for number in range(conversations)
    ]
    sides = Counter(draw(candidates, {}, rule(share)).sides.values())
    assert sides[Split.TEST] >= 1
    assert sides[Split.TRAIN] >= 1


def test_a_single_conversation_is_training_data() -> None:
    assert draw([candidate(1, "a", rows=9)], {}, rule(0.5)).sides == {UUID(int=1): Split.TRAIN}


def test_the_largest_number_is_a_number_of_comparisons_per_objective() -> None:
    candidates = [
        candidate(number, chr(0x4E00 + number), objective=objective)
        for objective, start in ((Objective.HELPFULNESS, 0), (Objective.SAFETY, 500))
        for number in range(start, start + 400)
    ]
    drawn = draw(candidates, {}, rule(0.5, most=7))
    held_out = Counter(found.objective for found in candidates if drawn.sides[found.conversation_id] is Split.TEST)
    assert held_out == {Objective.HELPFULNESS: 7, Objective.SAFETY: 7}


def test_another_seed_draws_another_split() -> None:
    candidates = [candidate(number, chr(0x4E00 + number)) for number in range(50)]
    assert draw(candidates, {}, rule(seed=1)) == draw(candidates, {}, rule(seed=1))
    assert draw(candidates, {}, rule(seed=1)) != draw(candidates, {}, rule(seed=2))


def test_a_chain_of_equal_prompts_with_both_sides_settled_is_left_out() -> None:
    settled = {prompt_key("a"): Split.TRAIN, prompt_key("d"): Split.TEST}
    drawn = draw([candidate(1, "ab"), candidate(2, "bc"), candidate(3, "cd"), candidate(4, "e")], settled, rule(0))
    assert drawn.on_both_sides == {UUID(int=1), UUID(int=2), UUID(int=3)}
    assert drawn.sides == {UUID(int=4): Split.TRAIN}


def test_a_settled_side_is_kept_even_beyond_the_limit() -> None:
    settled = {prompt_key("a"): Split.TEST}
    drawn = draw([candidate(1, "a", rows=6), candidate(2, "b", rows=1)], settled, rule(0.1))
    assert drawn.sides == {UUID(int=1): Split.TEST, UUID(int=2): Split.TRAIN}


@pytest.mark.parametrize("other", ["  how DO i\nmake tea? ", "\uff28ow do I make tea?", "How do I make\u00a0tea?"])
def test_prompts_are_equal_whatever_their_case_width_and_white_space(other: str) -> None:
    assert prompt_key(other) == prompt_key("How do I make tea?")


def test_words_that_differ_are_different_prompts() -> None:
    assert prompt_key("How do I make tea?") != prompt_key("How do I make teas?")


def test_a_short_follow_up_ties_nothing_together_but_a_first_prompt_always_does() -> None:
    assert key_in_conversation("Why?", turn=2) is None
    assert key_in_conversation("Why?", turn=1) == prompt_key("why?")
    assert key_in_conversation(LONG, turn=3) == prompt_key(LONG)
