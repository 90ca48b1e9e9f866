"""Temperature, top_k and top_p against the exact distribution."""

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from model_worker.sampling.nucleus import Draw, _nucleus, draw_tokens

DRAWS = 8_000


def exact_distribution(logits: Tensor, draw: Draw) -> Tensor:
    """What transformers would draw from: (vocabulary,) probabilities."""
    scores = TemperatureLogitsWarper(draw.temperature)(None, logits[None])
    if draw.top_k:
        scores = TopKLogitsWarper(draw.top_k)(None, scores)
    if draw.top_p < 1:
        scores = TopPLogitsWarper(draw.top_p)(None, scores)
    return scores.softmax(dim=-1)[0]


def drawn_shares(logits: Tensor, draw: Draw, *, candidates: int) -> Tensor:
    rows = [Draw(draw.temperature, draw.top_p, draw.top_k, seed, 0) for seed in range(DRAWS)]
    tokens, _ = draw_tokens(logits.expand(DRAWS, -1), rows, candidates=(candidates,))
    return torch.bincount(tokens, minlength=logits.shape[0]) / DRAWS


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(60, generator=torch.Generator().manual_seed(4)) * 1.5


@pytest.mark.parametrize("candidates", [8, 60, 4096])
@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.7, 0.9, 0), (1.4, 0.95, 0), (1.0, 1.0, 5), (0.9, 0.6, 20), (1.2, 0.999, 0), (1.0, 0.9, 100)],
)
def test_draws_follow_the_exact_distribution(
    logits: Tensor, temperature: float, top_p: float, top_k: int, candidates: int
) -> None:
    draw = Draw(temperature, top_p, top_k, 0, 0)
    expected = exact_distribution(logits, Draw(temperature, top_p, min(top_k, 60), 0, 0))
    shares = drawn_shares(logits, draw, candidates=candidates)
    assert (shares[expected == 0] == 0).all()
    likely = expected * DRAWS >= 5
    chi_square = (((shares - expected) ** 2 / expected)[likely] * DRAWS).sum().item()
    freedom = int(likely.sum()) - 1
    assert chi_square < freedom + 4.5 * (2 * freedom) ** 0.5 + 8
    assert (shares - expected).abs().sum().item() / 2 < 0.05


def test_no_limit_is_no_limit_even_where_probabilities_round_up_to_one() -> None:
    """top_k alone must keep all its tokens: the float32 sum of the likelier ones may reach 1 before the last."""
    values = torch.cat([torch.zeros(1), torch.full((49,), -18.0)])[None]
    kept, _ = _nucleus(values, values, torch.tensor([[torch.inf]]), torch.tensor([[50]]))
    assert bool(kept.all())


def test_largest_candidates_and_full_sort_draw_the_same() -> None:
    logits = torch.randn(300, 5000, generator=torch.Generator().manual_seed(1)) * 4
    draws = [Draw(0.5 + row / 200, 0.95, row % 3 * 40, row, row) for row in range(300)]
    fast, _ = draw_tokens(logits, draws, candidates=(1024,))
    whole, _ = draw_tokens(logits, draws, candidates=())
    assert torch.equal(fast, whole)


def test_temperature_zero_and_top_k_one_take_the_likeliest(logits: Tensor) -> None:
    tokens, _ = draw_tokens(
        logits.expand(3, -1), [Draw(0.0, 1.0, 0, 1, 1), Draw(0.0, 0.1, 7, 1, 1), Draw(2.0, 1.0, 1, 1, 1)]
    )
    assert tokens.tolist() == [logits.argmax().item()] * 3


def test_a_tiny_top_p_keeps_one_token(logits: Tensor) -> None:
    draws = [Draw(1.0, 1e-9, 0, seed, 0) for seed in range(50)]
    tokens, _ = draw_tokens(logits.expand(50, -1), draws)
    assert set(tokens.tolist()) == {logits.argmax().item()}


def test_logprobs_are_those_before_temperature_and_limits(logits: Tensor) -> None:
    draws = [Draw(0.3, 0.5, 4, 1, 0), Draw(2.0, 1.0, 0, 2, 0), Draw(0.0, 1.0, 0, 3, 0)]
    tokens, logprobs = draw_tokens(logits.expand(3, -1), draws)
    torch.testing.assert_close(logprobs, logits.log_softmax(dim=-1)[tokens])


def test_rows_with_different_settings_do_not_disturb_each_other(logits: Tensor) -> None:
    draws = [Draw(0.7, 0.9, 0, 1, 3), Draw(0.0, 1.0, 0, 2, 3), Draw(1.2, 1.0, 0, 3, 9), Draw(1.0, 0.5, 12, 4, 0)]
    together, _ = draw_tokens(logits.expand(4, -1), draws)
    alone = [draw_tokens(logits[None], [draw])[0].item() for draw in draws]
    assert together.tolist() == alone


def test_half_precision_logits_are_drawn_from_in_single_precision(logits: Tensor) -> None:
    tokens, logprobs = draw_tokens(logits.bfloat16()[None], [Draw(1.0, 0.9, 0, 1, 0)])
    assert logprobs.dtype == torch.float32
    assert tokens.dtype == torch.int64
