"""Pick the next token of each row, and say where rounding could have decided.

A draw is a race, as in an evaluation (``evaluation.decoding``): with one seed, mixes that nearly agree nearly always
draw the same token, so that a slider over the weights changes what the weights change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.evaluation.decoding import APART, CLOSE, COLDEST, gumbel, heated


@dataclass(frozen=True)
class Sampling:
    """How a token is picked: the likeliest at temperature 0, else one of the nucleus of ``top_p`` by chance."""

    temperature: float = 0.0
    top_p: float = 1.0


GREEDY = Sampling()
HEAD, MARGIN = 256, 0.01
"""Tokens that are put in order first, and by how much of the mass they have to go beyond the nucleus."""


@dataclass(frozen=True)
class Pick:
    """A token, and whether other rounding could have led to another, or the logits are not finite and lead to none."""

    token: int
    doubtful: bool = False
    broken: bool = False


def likeliest(logits: Tensor) -> list[Pick]:
    """Return the likeliest token of each row. (n, V) -> n."""
    best = logits.float().topk(2)
    leads = (best.values[:, 0] - best.values[:, 1]).tolist()
    tokens = best.indices[:, 0].tolist()
    return [
        Pick(token, lead < APART and lead < _rounding(logits[row]), broken=not math.isfinite(lead))
        for row, (token, lead) in enumerate(zip(tokens, leads, strict=True))
    ]


def drawn(logits: Tensor, sampling: Sampling, noise: Tensor) -> Pick:
    """Return the token of one row that wins the race with ``noise`` in the nucleus. (V,), (V,)."""
    scores = heated(logits, sampling.temperature)
    rounding = _rounding(logits) / max(sampling.temperature, COLDEST)
    nucleus = Nucleus(scores, sampling.top_p)
    best = torch.where(nucleus.inside(rounding), scores + noise, -math.inf).topk(2)
    token, lead = int(best.indices[0]), float(best.values[0] - best.values[1])
    surely = float(scores[token]) >= nucleus.threshold(-rounding)
    return Pick(token, doubtful=lead < rounding or not surely)


def settled(logits: Tensor, sampling: Sampling, noise: Tensor | None) -> int:
    """Return the token that exact logits (V,) decide."""
    if noise is None:
        return int(logits.argmax())
    scores = heated(logits, sampling.temperature)
    return int(torch.where(Nucleus(scores, sampling.top_p).inside(0.0), scores + noise, -math.inf).argmax())


class Nucleus:
    """The tokens such that less than ``top_p`` lies in likelier ones (Holtzman et al. 2020), from scores (V,).

    With rounding of up to ``slack`` in the scores, these are the tokens that may be in; with a negative one, those that
    surely are. Only the head of the vocabulary is put in order if the nucleus is within.
    """

    def __init__(self, scores: Tensor, top_p: float) -> None:
        self._scores, self._top_p = scores, top_p
        total = scores.logsumexp(-1)
        for count in (min(HEAD, len(scores)), len(scores)):
            self._falling = scores.topk(count).values  # (n,)
            self._odds = (self._falling - total).exp()
            self._mass = torch.cat([self._odds.new_zeros(1), self._odds.cumsum(-1)])  # of the first 0, 1, ... tokens
            if float(self._mass[-1]) > top_p + MARGIN:
                break

    def threshold(self, slack: float) -> float:
        """Return the least score of a token that is in."""
        if self._top_p == 1:
            return -math.inf
        likelier = self._mass[torch.searchsorted(-self._falling, -(self._falling + slack))]
        if slack < 0:
            likelier = likelier - self._odds  # a token is counted among those that may be likelier than it
        found = self._falling[likelier < max(self._top_p + slack, 1e-6)]
        return float(found[-1]) if len(found) else math.inf

    def inside(self, slack: float) -> Tensor:
        """Tell which tokens are in. (V,)."""
        return self._scores >= self.threshold(slack)


def noise_of(random: torch.Generator, size: int, device: torch.device) -> Tensor:
    """Return the random numbers of one token. (V,)."""
    return gumbel(torch.rand(size, generator=random, device=device))


def _rounding(logits: Tensor) -> float:
    """Return by how much logits (V,) of float32 weights may be off."""
    return CLOSE * float(logits.abs().max())
