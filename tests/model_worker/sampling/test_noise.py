"""Noise that depends on seed, index and token alone."""

import math
import random

import pytest
import torch

from model_worker.sampling import noise, seeds

PINNED = [0.9537484987039588, 0.28079677292176836, 0.27487513482642006]


def test_splitmix64_has_the_published_values() -> None:
    # The first outputs of the reference generator with seed 0, and with seed 1234567.
    assert seeds.splitmix64(0) == 0xE220A8397B1DCDAF
    assert seeds.splitmix64(seeds.GOLDEN_GAMMA) == 0x6E789E6AA1B965F4
    assert seeds.splitmix64(1234567) == 6457827717110365317


def test_torch_hashes_as_python_does() -> None:
    generator = random.Random(3)
    values = [0, 1, 2**63 - 1, *(generator.getrandbits(63) for _ in range(200))]
    hashed = noise.splitmix64(torch.tensor(values)).tolist()
    assert [value % 2**64 for value in hashed] == [seeds.splitmix64(value) for value in values]


def test_noise_is_pinned() -> None:
    drawn = noise.uniform(torch.tensor([0, 42]), torch.tensor([0, 7]), torch.tensor([[0, 1, 2], [0, 1, 31999]]))
    expected = []
    for seed, index, row in ((0, 0, (0, 1, 2)), (42, 7, (0, 1, 31999))):
        key = seeds.splitmix64(seeds.splitmix64(seed) ^ (index * seeds.GOLDEN_GAMMA) % 2**64)
        expected.append([((seeds.splitmix64(key ^ token) >> 11) + 0.5) * 2.0**-53 for token in row])
    assert drawn.tolist() == expected
    # Literal values, so that no later change of the code moves both sides: stored seeds must keep their meaning.
    assert drawn[1].tolist() == PINNED


def test_noise_of_a_row_does_not_depend_on_the_other_rows() -> None:
    tokens = torch.arange(50)
    alone = noise.gumbel(torch.tensor([5]), torch.tensor([3]), tokens[None])
    among = noise.gumbel(torch.tensor([9, 5, 5]), torch.tensor([3, 3, 4]), tokens.expand(3, -1))
    assert torch.equal(among[1], alone[0])
    assert not torch.equal(among[2], alone[0])


def test_noise_is_uniform_over_seeds_indexes_and_tokens() -> None:
    count = 20_000
    zeros = torch.zeros(count, dtype=torch.int64)
    steps = torch.arange(count)
    for name, drawn in {
        "seeds": noise.uniform(steps, zeros, zeros[:, None]),
        "indexes": noise.uniform(zeros, steps, zeros[:, None]),
        "tokens": noise.uniform(zeros[:1], zeros[:1], steps[None]),
    }.items():
        counts = torch.histc(drawn.flatten(), bins=50, min=0.0, max=1.0)
        chi_square = ((counts - count / 50) ** 2 / (count / 50)).sum().item()
        assert chi_square < 85, name  # 49 degrees of freedom: 0.1 % lie above 85
        following = torch.corrcoef(torch.stack([drawn.flatten()[:-1], drawn.flatten()[1:]]))[0, 1].item()
        assert abs(following) < 4 / math.sqrt(count), name
        assert drawn.min().item() > 0
        assert drawn.max().item() < 1


def test_the_largest_hash_is_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A noise of infinity would draw its token whatever its probability, even one that no limit allows."""
    ones = torch.full((1,), -1)
    monkeypatch.setattr(noise, "splitmix64", lambda values: torch.full_like(values, -1))
    assert noise.uniform(ones, ones, ones[:, None]).item() < 1
    assert math.isfinite(noise.gumbel(ones, ones, ones[:, None]).item())


def test_redraw_seeds_differ_and_fit_the_contract() -> None:
    drawn = {seeds.redraw_seed(seed, redraw) for seed in (0, 1, 2**63 - 1) for redraw in (1, 2, 3, 4)}
    assert len(drawn) == 12
    assert all(0 <= seed < 2**63 for seed in drawn)
