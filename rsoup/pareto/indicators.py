"""One number for a front, or for one front against another."""

from __future__ import annotations

import moocore
import numpy as np

from rsoup.pareto.dominance import Floats, non_dominated, require_finite, weakly_dominates

MOST_EXACT, FEW_POINTS = 6, 10
"""Rewards beyond which the exact volume of more than a few points takes too long for a bootstrap."""
DIRECTIONS = 2**13


def is_exact(points: int, rewards: int) -> bool:
    """Say whether the hypervolume of so many points and rewards is exact."""
    return rewards <= MOST_EXACT or points <= FEW_POINTS


def hypervolume(scores: Floats, reference_point: Floats) -> float:
    """Return the volume that (points, rewards) dominate above the reference point (Zitzler & Thiele 1998).

    With more than ``MOST_EXACT`` rewards and ``FEW_POINTS`` above the reference point it is the mean over directions of
    a fixed sequence (Deng & Zhang 2019), right to a few per cent.
    """
    require_finite(scores)
    if scores.shape[1] > MOST_EXACT:
        scores = scores[(scores > reference_point).all(axis=1)]
    if is_exact(*scores.shape):
        return float(moocore.hypervolume(scores, ref=reference_point, maximise=True)) if len(scores) else 0.0
    above = scores - reference_point
    box = above.max(axis=0)
    share = moocore.hv_approx(above / box, ref=0.0, maximise=True, nsamples=DIRECTIONS)
    return float(share * np.prod(box))


def hypervolumes(draws: Floats, reference_point: Floats) -> Floats:
    """Return (draws,): the hypervolume of the points in each of (draws, points, rewards)."""
    if draws.shape[2] != 2:
        return np.array([hypervolume(scores, reference_point) for scores in draws])
    above = np.maximum(draws - reference_point, 0.0)
    order = np.argsort(-above[:, :, 0], axis=1, kind="stable")
    above = np.take_along_axis(above, order[:, :, None], axis=1)  # along a front the first reward falls
    heights = np.maximum.accumulate(above[:, :, 1], axis=1)
    widths = above[:, :, 0] - np.concatenate([above[:, 1:, 0], np.zeros((len(above), 1))], axis=1)
    volumes: Floats = np.sum(widths * heights, axis=1)
    return volumes


def area_over_curve(scores: Floats, reference_point: Floats, ideal: Floats) -> float:
    """Return the share of the box from the reference point to the ideal that no point dominates: 0 is perfect.

    The hypervolume turned round, so that smaller is better. A reward on which the box is flat is left out.
    """
    wide = ideal > reference_point
    if not wide.any():
        return 0.0
    shares = (np.minimum(scores, ideal)[:, wide] - reference_point[wide]) / (ideal - reference_point)[wide]
    return 1.0 - hypervolume(shares, np.zeros(int(wide.sum())))


def scaled(scores: Floats, low: Floats, high: Floats) -> Floats:
    """Return the scores with ``low`` at 0 and ``high`` at 1; a reward without range becomes 0."""
    span = high - low
    return np.where(span > 0, (scores - low) / np.where(span > 0, span, 1.0), 0.0)


def additive_epsilon(first: Floats, second: Floats) -> float:
    """Return how much must be added to every reward of ``first`` for it to cover ``second`` (Zitzler et al. 2003)."""
    return float(moocore.epsilon_additive(require_finite(first), ref=require_finite(second), maximise=True))


def coverage(first: Floats, second: Floats) -> float:
    """Return C(first, second): the share of ``second`` that a point of ``first`` weakly dominates (Zitzler 1999)."""
    return float(weakly_dominates(first, second).any(axis=0).mean())


def sparsity(scores: Floats) -> float | None:
    """Return the mean squared step between neighbours on the front, summed over rewards (Xu et al. 2020).

    None for a front of one point.
    """
    front = np.sort(np.unique(scores[non_dominated(scores)], axis=0), axis=0)
    return float(np.sum(np.diff(front, axis=0) ** 2) / (len(front) - 1)) if len(front) > 1 else None


def spacing(scores: Floats) -> float | None:
    """Return the deviation of the distances (sum of differences) to the nearest neighbour on the front (Schott 1995).

    None for a front of one point.
    """
    front = np.unique(scores[non_dominated(scores)], axis=0)
    if len(front) < 2:
        return None
    distances = np.abs(front[:, None, :] - front[None, :, :]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(np.std(distances.min(axis=1), ddof=1))


def mean_inner_product(scores: Floats, preferences: Floats) -> float:
    """Return the mean of mu . R, each row with its own preference: both (points, rewards) (Zhong et al. 2024)."""
    return float(np.mean(np.sum(scores * preferences, axis=1)))


def controllability(weights: Floats, scores: Floats) -> float | None:
    """Return Spearman's rank correlation of a weight (points,) and the score it should raise (points,).

    None where either is constant.
    """
    if len(weights) < 2 or np.ptp(weights) == 0 or np.ptp(scores) == 0:
        return None
    return float(np.corrcoef(_ranks(weights), _ranks(scores))[0, 1])


def _ranks(values: Floats) -> Floats:
    """Return the rank of every value, the mean rank for equal ones."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
