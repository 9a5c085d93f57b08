"""Draws have the frequencies of the nucleus, and close calls are noticed."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from rsoup.evaluation.decoding import heated
from rsoup.serving.choosing import Nucleus, Pick, Sampling, drawn, likeliest, noise_of, settled

LOGITS = torch.tensor([2.0, 0.0, 1.0, -3.0, 1.5])


def draws(logits: Tensor, sampling: Sampling, count: int) -> list[Pick]:
    random = torch.Generator().manual_seed(0)
    return [drawn(logits, sampling, noise_of(random, len(logits), logits.device)) for _ in range(count)]


@pytest.mark.parametrize(("temperature", "top_p", "kept"), [(1.0, 1.0, 5), (0.7, 0.9, 3), (2.0, 0.5, 2), (1.0, 0.0, 1)])
def test_draws_have_the_frequencies_of_the_nucleus(temperature: float, top_p: float, kept: int) -> None:
    """The nucleus worked out by sorting: the likeliest tokens until their mass reaches top_p."""
    odds = (LOGITS.double() / temperature).softmax(-1)
    order = odds.argsort(descending=True)
    before = odds[order].cumsum(-1) - odds[order]
    nucleus = order[: max(1, int((before < top_p).sum()))]
    assert len(nucleus) == kept
    counts = torch.zeros(5, dtype=torch.float64)
    for pick in draws(LOGITS, Sampling(temperature, top_p), 4000):
        counts[pick.token] += 1
    expected = torch.zeros(5, dtype=torch.float64)
    expected[nucleus] = odds[nucleus] / odds[nucleus].sum() * 4000
    assert counts[expected == 0].sum() == 0
    if kept > 1:
        assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_clear_calls_are_no_doubt() -> None:
    assert likeliest(LOGITS[None].repeat(3, 1)) == [Pick(0)] * 3
    assert not any(pick.doubtful for pick in draws(LOGITS, Sampling(1.0, 0.8), 500))


def test_a_lead_that_rounding_could_make_is_doubtful() -> None:
    twins = torch.tensor([1.0, 3.0, 3.0 + 1e-5, -2.0])
    assert likeliest(twins[None]) == [Pick(2, doubtful=True)]
    still = torch.zeros(4)
    assert drawn(twins, Sampling(1.0), still).doubtful
    assert settled(twins, Sampling(1.0), still) == 2
    assert settled(twins, Sampling(), None) == 2


def test_a_winner_at_the_edge_of_the_nucleus_is_doubtful() -> None:
    """The third token is in if less than top_p lies in the first two: with their very mass, rounding decides."""
    odds = torch.tensor([0.5, 0.3, 0.2])
    logits, push = odds.log(), torch.tensor([0.0, 0.0, 9.0])
    edge = Sampling(1.0, 0.8 + 1e-7)
    assert drawn(logits, edge, push) == Pick(2, doubtful=True)
    assert drawn(logits, Sampling(1.0, 0.81), push) == Pick(2)
    assert drawn(logits, Sampling(1.0, 0.79), push) == Pick(0)  # out of it, whatever its luck
    assert drawn(logits, edge, torch.tensor([9.0, 0.0, 0.0])) == Pick(0)  # whether the third is in plays no part
    assert [bool(Nucleus(logits, 0.8).inside(slack)[2]) for slack in (1e-3, -1e-3)] == [True, False]


def test_equally_likely_tokens_are_in_the_nucleus_together() -> None:
    """Which of them comes first in an order is of no meaning."""
    for scores, top_p, expected in (
        ([1.0, 0.0, 1.0, 0.0], 0.5, [True, False, True, False]),
        ([0.0, 0.0, 0.0], 0.01, [True, True, True]),
    ):
        assert Nucleus(torch.tensor(scores), top_p).inside(0.0).tolist() == expected


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.999])
def test_a_nucleus_of_any_size_is_that_of_all_tokens_in_order(spread: float, top_p: float) -> None:
    """Of one token to nearly all of a vocabulary, against the definition for each token by itself."""
    scores = spread * torch.randn(700, generator=torch.Generator().manual_seed(0))
    odds = scores.double().softmax(-1)
    likelier = torch.stack([odds[scores > score].sum() for score in scores])
    clear = (likelier - top_p).abs() > 1e-5
    assert torch.equal(Nucleus(scores, top_p).inside(0.0)[clear], (likelier < top_p)[clear])


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 1e-300])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_temperature_near_0_draws_the_likeliest_token(temperature: float, top_p: float) -> None:
    """Scores that are too large for float32 would all be one infinity."""
    logits = torch.cat([torch.linspace(0.5, 2.0, 400), torch.tensor([3.0]), torch.linspace(2.0, 2.9, 400)])
    sampling = Sampling(temperature, top_p)
    assert draws(logits, sampling, 5) == [Pick(400)] * 5
    noise = noise_of(torch.Generator().manual_seed(1), len(logits), logits.device)
    assert settled(logits, sampling, noise) == 400
    assert (heated(logits, temperature) + noise).argmax() == 400
