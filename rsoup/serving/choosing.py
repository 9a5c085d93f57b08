"""Pick the next token of each row, and say where rounding could have decided.

A draw is a race, as in an evaluation (``evaluation.decoding``): with one seed, mixes that nearly agree nearly always
draw the same token, so that a slider over the weights changes what the weights change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.evaluation.decoding import APART, CLOSE, gumbel


@dataclass(frozen=True)
class Sampling:
    """How a token is picked: the likeliest at temperature 0, else one of the nucleus of ``top_p`` by chance."""

    temperature: float = 0.0
    top_p: float = 1.0


GREEDY = Sampling()


@dataclass(frozen=True)
class Pick:
    """A token, and whether other rounding could have led to another."""

    token: int
    doubtful: bool = False


def likeliest(logits: Tensor) -> list[Pick]:
    """Return the likeliest token of each row. (n, V) -> n."""
    best = logits.float().topk(2)
    leads = (best.values[:, 0] - best.values[:, 1]).tolist()
    tokens = best.indices[:, 0].tolist()
    return [
        Pick(token, lead < APART and lead < _rounding(logits[row]))
        for row, (token, lead) in enumerate(zip(tokens, leads, strict=True))
    ]


def drawn(logits: Tensor, sampling: Sampling, noise: Tensor) -> Pick:
    """Return the token of one row that wins the race with ``noise`` in the nucleus. (V,), (V,)."""
    scores = logits.float() / sampling.temperature
    rounding = _rounding(logits) / sampling.temperature
    possible = inside(scores, sampling.top_p, rounding)
    best = torch.where(possible, scores + noise, -math.inf).topk(2)
    token, lead = int(best.indices[0]), float(best.values[0] - best.values[1])
    if lead >= rounding and (sampling.top_p == 1 or bool(inside(scores, sampling.top_p, -rounding)[token])):
        return Pick(token)
    return Pick(token, doubtful=True)


def settled(logits: Tensor, sampling: Sampling, noise: Tensor | None) -> int:
    """Return the token that exact logits (V,) decide."""
    if noise is None:
        return int(logits.argmax())
    scores = logits.float() / sampling.temperature
    race = torch.where(inside(scores, sampling.top_p, 0.0), scores + noise, -math.inf)
    return int(race.argmax())


def inside(scores: Tensor, top_p: float, slack: float) -> Tensor:
    """Tell which tokens are in the nucleus: less than ``top_p`` lies in likelier ones (Holtzman et al. 2020). (V,).

    With rounding of up to ``slack`` in the scores: those that may be in, or with a negative one, those that surely are.
    """
    if top_p == 1:
        return torch.ones_like(scores, dtype=torch.bool)
    odds = scores.double().softmax(-1)
    falling, order = scores.sort(descending=True)
    mass = torch.cat([odds.new_zeros(1), odds[order].cumsum(-1)])  # of the first 0, 1, ... tokens
    likelier = mass[torch.searchsorted(-falling, -(scores + slack))]
    if slack < 0:
        likelier = likelier - odds  # the token itself is counted among those that may be likelier
    return likelier < max(top_p + slack, 1e-12)


def noise_of(random: torch.Generator, size: int, device: torch.device) -> Tensor:
    """Return the random numbers of one token. (V,)."""
    return gumbel(torch.rand(size, generator=random, device=device))


def _rounding(logits: Tensor) -> float:
    """Return by how much logits (V,) of float32 weights may be off."""
    return CLOSE * float(logits.abs().max())
