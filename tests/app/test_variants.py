"""How the two model variants of a comparison are drawn."""

from collections import Counter

from app.models import BatchVariant, Comparison, new_id
from app.sampling.variants import draw_pair
from contract.vocabulary import Generation, Objective


def test_weights_decide_how_often_a_variant_is_drawn() -> None:
    weights = {0.1: 1.0, 0.2: 2.0, 0.3: 7.0}
    checkpoint_id = new_id()
    pool = [
        BatchVariant(
            batch_id=new_id(),
            position=0,
            temperature=temperature,
            top_p=1.0,
            weight=weight,
            checkpoint_id=checkpoint_id,
            generation=Generation.PREVIOUS if weight > 1 else Generation.NEWEST,
        )
        for temperature, weight in weights.items()
    ]
    comparison = Comparison(
        conversation_id=new_id(), batch_id=new_id(), objective=Objective.HELPFULNESS, turn=1, prompt="Hi"
    )
    draws = 20_000
    counts: Counter[frozenset[float]] = Counter()
    on_side_a: Counter[float] = Counter()
    for _ in range(draws):
        drawn = draw_pair(comparison, pool, max_new_tokens=8)
        assert {response.temperature: response.generation for response in drawn}.items() <= {
            variant.temperature: variant.generation for variant in pool
        }.items()
        counts[frozenset(response.temperature for response in drawn)] += 1
        on_side_a[drawn[0].temperature] += 1
    shares = {temperature: weight / sum(weights.values()) for temperature, weight in weights.items()}
    for one, other in ((0.1, 0.2), (0.1, 0.3), (0.2, 0.3)):
        # Either is first, by weight among all; the other one is second, by weight among those left.
        p, q = shares[one], shares[other]
        _expect(counts[frozenset({one, other})], p * q / (1 - p) + q * p / (1 - q), draws)
    for temperature in weights:
        # A variant stands on side A in half of its pairs.
        n = sum(count for drawn_pair, count in counts.items() if temperature in drawn_pair)
        _expect(on_side_a[temperature], 0.5, n)


def _expect(count: int, share: float, n: int) -> None:
    """A count within eight standard deviations: chance leaves that once in 10^15 runs."""
    assert abs(count - n * share) < 8 * (n * share * (1 - share)) ** 0.5


def test_variants_that_come_to_the_same_are_not_paired_while_others_are_there() -> None:
    """In a first week the previous checkpoint is the newest."""
    checkpoint_id, batch_id = new_id(), new_id()
    pool = [
        BatchVariant(
            batch_id=batch_id,
            position=position,
            temperature=temperature,
            top_p=0.95,
            checkpoint_id=checkpoint_id,
            generation=generation,
        )
        for position, (temperature, generation) in enumerate(
            (temperature, generation) for temperature in (0.7, 1.2) for generation in Generation
        )
    ]
    comparison = Comparison(
        conversation_id=new_id(), batch_id=batch_id, objective=Objective.HELPFULNESS, turn=1, prompt="Hi"
    )
    for _ in range(200):
        assert {response.temperature for response in draw_pair(comparison, pool, max_new_tokens=8)} == {0.7, 1.2}
    # Where there is nothing else, they are.
    assert len(draw_pair(comparison, pool[:2], max_new_tokens=8)) == 2
