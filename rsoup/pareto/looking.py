"""A preference read from choices between pairs of answers.

Bradley and Terry (1952): of two answers, that of point a is liked better with the probability
sigma(s mu . (z_a - z_b)). z are the mean gains of the points, each reward scaled to 0-1 over all points; mu, the
preference, lies on the simplex, and s says how surely the better one is told. An undecided choice counts half for each.
The prior is flat in mu and in log s; the posterior is summed over a lattice, so few choices leave it wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsoup.pareto.choice import best_for, simplex_lattice
from rsoup.pareto.dominance import Floats

STEPS = {1: 1, 2: 100, 3: 24, 4: 12, 5: 8, 6: 6}  # of the lattice, by number of rewards; 4 beyond
SHARPNESS = 2.0 ** np.arange(-1, 6.5, 0.5)
NEAR = 0.05  # of a utility between 0 and 1: what a mix may lack and still be the one
LEAST, SURE = 8, 0.8  # choices, and probability of being near the best, below which the preference is not known
TAIL = 0.025


@dataclass(frozen=True)
class Preferred:
    """What choices say: the mean of mu with its 95 % interval (2, rewards), and the row of the mix that serves it best.

    ``sure`` is the probability that the mix is within ``NEAR`` of the best one; ``agreeing`` of the ``decided`` choices
    are those that mu foretells.
    """

    mu: Floats
    interval: Floats
    best: int
    sure: float
    decided: int
    agreeing: int
    choices: int

    @property
    def known(self) -> bool:
        """Whether there are enough choices, and they leave little doubt about the mix."""
        return self.choices >= LEAST and self.sure >= SURE


def preferred(shares: Floats, pairs: Sequence[tuple[int, int]], liked: Sequence[float]) -> Preferred:
    """Return the preference behind choices between the answers of pairs of rows of ``shares`` (points, rewards).

    ``shares`` are scaled gains; ``liked`` is 1 where the first of the pair was chosen, 0 the second, 0.5 neither.
    """
    lattice = simplex_lattice(shares.shape[1], STEPS.get(shares.shape[1], 4))
    rows = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    chosen = np.array(liked, dtype=float)
    differences = shares[rows[:, 0]] - shares[rows[:, 1]]  # (choices, rewards)
    weights = posterior(lattice, differences, chosen)
    mu = weights @ lattice
    best = best_for(shares, mu)
    worth = lattice @ shares.T  # (lattice, points)
    sure = float(weights[worth[:, best] >= worth.max(axis=1) - NEAR].sum())
    decided = chosen != 0.5
    agreeing = np.sign(differences @ mu)[decided] == np.sign(chosen - 0.5)[decided]
    interval = np.stack([_quantiles(lattice, weights, TAIL), _quantiles(lattice, weights, 1 - TAIL)])
    return Preferred(mu, interval, best, sure, int(decided.sum()), int(agreeing.sum()), len(chosen))


def posterior(lattice: Floats, differences: Floats, liked: Floats) -> Floats:
    """Return the probability of each mu of the lattice (mus, rewards), given choices (choices, rewards)."""
    utility = lattice @ differences.T  # (mus, choices)
    logs = np.stack([_log_likelihood(sharpness * utility, liked) for sharpness in SHARPNESS])
    weights = np.exp(logs - logs.max()).sum(axis=0)
    return np.asarray(weights / weights.sum())


def _log_likelihood(odds: Floats, liked: Floats) -> Floats:
    return np.asarray(-(liked * np.logaddexp(0, -odds) + (1 - liked) * np.logaddexp(0, odds)).sum(axis=1))


def _quantiles(lattice: Floats, weights: Floats, share: float) -> Floats:
    """Return for each reward the smallest weight of it that at most ``share`` of the probability lies below."""
    found = []
    for column in lattice.T:
        order = np.argsort(column, kind="stable")
        below = np.cumsum(weights[order])
        found.append(column[order][min(int(np.searchsorted(below, share - 1e-12)), len(order) - 1)])
    return np.array(found)
