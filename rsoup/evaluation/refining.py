"""Choose the next mix to measure: where a model of the rewards expects the largest gain in hypervolume.

Each reward is modelled over the weights by a Gaussian process (squared exponential kernel; length scale and noise by
maximum marginal likelihood), and candidates are ranked by their expected hypervolume improvement (Emmerich 2006),
estimated from joint draws of the rewards. The reference point is the smallest measured score on each reward.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from rsoup.evaluation.layout import Weights, in_steps
from rsoup.evaluation.records import Floats
from rsoup.mixing import lattice
from rsoup.pareto.indicators import hypervolume

STEPS = 100
"""Candidates are mixes in steps of 1 / STEPS."""
CANDIDATES = 300
DRAWS = 64
LENGTHS = (0.1, 0.2, 0.35, 0.6, 1.0, 2.0)
NOISES = (1e-4, 1e-3, 1e-2, 1e-1)


def next_point(weights: Floats, scores: Floats, seed: int) -> Weights | None:
    """Return the weights to measure next from those measured (points, ingredients) and their scores (points, rewards).

    Larger scores are better: those of rewards to be minimised come with the opposite sign.
    None when every candidate has been measured. The same input gives the same choice.
    """
    candidates = _candidates(weights, np.random.default_rng([seed, len(weights)]))
    if not len(candidates):
        return None
    means, deviations = zip(*(predict(weights, column, candidates) for column in scores.T), strict=True)
    gains = _expected_gains(np.stack(means, axis=1), np.stack(deviations, axis=1), scores, seed)
    return tuple(candidates[int(np.argmax(gains))].tolist())


def predict(weights: Floats, values: Floats, candidates: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of one reward at the candidates: (candidates,) each."""
    centre, spread = float(values.mean()), float(values.std())
    if spread == 0:
        return np.full(len(candidates), centre), np.zeros(len(candidates))
    y = (values - centre) / spread
    _, length, noise = max(_evidence(weights, y, length, noise) for length, noise in itertools.product(LENGTHS, NOISES))
    lower = np.linalg.cholesky(_kernel(weights, weights, length) + noise * np.eye(len(y)))
    cross = np.linalg.solve(lower, _kernel(weights, candidates, length))  # (points, candidates)
    mean = cross.T @ np.linalg.solve(lower, y)
    variance = np.clip(1.0 - (cross**2).sum(axis=0), 0.0, None)
    return centre + spread * mean, spread * np.sqrt(variance)


def _kernel(one: Floats, other: Floats, length: float) -> Floats:
    squares = ((one[:, None] - other[None]) ** 2).sum(-1)
    kernel: Floats = np.exp(-squares / (2 * length**2))
    return kernel


def _evidence(weights: Floats, y: Floats, length: float, noise: float) -> tuple[float, float, float]:
    """Return the log marginal likelihood (up to a constant), and what it belongs to."""
    lower = np.linalg.cholesky(_kernel(weights, weights, length) + noise * np.eye(len(y)))
    half = np.linalg.solve(lower, y)
    return float(-0.5 * half @ half - np.log(np.diag(lower)).sum()), length, noise


def _expected_gains(means: Floats, deviations: Floats, scores: Floats, seed: int) -> Floats:
    """Return the expected hypervolume improvement of each candidate. (candidates, rewards) -> (candidates,)."""
    reference = scores.min(axis=0)
    now = hypervolume(scores, reference)
    noise = np.random.default_rng(seed).standard_normal((DRAWS, means.shape[1]))  # the same for every candidate
    gains = np.empty(len(means))
    for index, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        drawn = mean + noise * deviation
        gains[index] = np.mean([hypervolume(np.vstack([scores, own]), reference) - now for own in drawn])
    return gains


def _candidates(weights: Floats, random: np.random.Generator) -> Floats:
    """Return mixes that were not measured: every step of a line, else random points of the simplex."""
    count = weights.shape[1]
    if math.comb(STEPS + count - 1, count - 1) <= CANDIDATES:
        drawn = lattice(count, STEPS)
    else:
        drawn = [in_steps(parts, STEPS) for parts in random.dirichlet(np.ones(count), size=CANDIDATES)]
    taken = {tuple(np.round(row * STEPS, 6)) for row in weights}
    fresh = [row for row in dict.fromkeys(drawn) if tuple(np.round(np.array(row) * STEPS, 6)) not in taken]
    return np.array(fresh).reshape(len(fresh), count)
