"""Choosing one point of a front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsoup.pareto.dominance import Floats, non_dominated
from rsoup.pareto.indicators import scaled

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Regret:
    """What a choice lost against the best point of the prompts it is judged on, in units of mu . R."""

    value: float
    stderr: float | None
    best: int


def best_for(scores: Floats, mu: Floats) -> int:
    """Return the row of (points, rewards) with the largest mu . R; the first of equal ones."""
    return int(np.argmax(scores @ mu))


def nearest(weights: Floats, wanted: Floats) -> int:
    """Return the row of (points, experts) nearest to the wanted weights; the first of equal ones."""
    distances = np.abs(weights - wanted).sum(axis=1)
    return int(np.flatnonzero(distances <= distances.min() + 1e-9)[0])


def best_at_least(scores: Floats, floors: Floats, mu: Floats) -> int | None:
    """Return the row with the largest mu . R among those at or above every floor; None if no row is.

    A reward without a floor has the floor -inf.
    """
    allowed = (scores >= floors).all(axis=1)
    return int(np.argmax(np.where(allowed, scores @ mu, -np.inf))) if allowed.any() else None


def knee(scores: Floats) -> int:
    """Return the row farthest above the plane through the extremes of the front, on scaled rewards (Das 1999)."""
    front = np.flatnonzero(non_dominated(scores))
    own = scores[front]
    return int(front[np.argmax(scaled(own, own.min(axis=0), own.max(axis=0)).sum(axis=1))])


def halves(prompts: int, seed: int) -> tuple[Indices, Indices]:
    """Return the prompts of the validation half and of the other half, drawn at random."""
    order = np.random.default_rng(seed).permutation(prompts)
    return np.sort(order[: prompts // 2]), np.sort(order[prompts // 2 :])


def regret(samples: Floats, mu: Floats, chosen: int) -> Regret:
    """Return the regret of the point ``chosen`` on (prompts, points, rewards), with its paired standard error."""
    values = samples @ mu  # (prompts, points)
    best = int(np.argmax(values.mean(axis=0)))
    losses = values[:, best] - values[:, chosen]
    stderr = float(np.std(losses, ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else None
    return Regret(float(losses.mean()), stderr, best)


def simplex_lattice(parts: int, steps: int) -> Floats:
    """Return every row of ``parts`` multiples of 1 / ``steps`` that sums to 1, the first part falling."""
    if parts == 1:
        return np.ones((1, 1))
    rows = [
        np.concatenate([[steps - rest], tail * rest])
        for rest in range(steps + 1)
        for tail in (simplex_lattice(parts - 1, rest) if rest else np.zeros((1, parts - 1)))
    ]
    return np.array(rows) / steps
