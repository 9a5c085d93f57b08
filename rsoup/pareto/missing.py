"""Scores that are missing where a reward does not apply to a prompt."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rsoup.pareto.bootstrap import stretch
from rsoup.pareto.dominance import Bools, Floats


def complete_prompts(samples: Floats) -> Bools:
    """Return which prompts have a score on each reward, of every seed and point: (prompts, rewards)."""
    return np.asarray(~np.isnan(samples).any(axis=(0, 2)))


def filled(samples: Floats) -> Floats:
    """Return (seeds, prompts, points, rewards) without missing scores, which says of each reward what its prompts say.

    A reward counts only the prompts that have its score at every point, so that points are compared on the same ones.
    The others get the mean, which leaves it as it is, and deviations grow so that standard errors are those of the
    prompts that count. Where these are few, they grow by as much more as Student's quantile has to with their degrees
    of freedom: intervals that go by the number of all prompts are then wide enough. Two prompts at least have to count.
    """
    there = complete_prompts(samples)  # (prompts, rewards)
    known: NDArray[np.intp] = there.sum(axis=0)
    if (known == len(there)).all():
        return samples
    weights = there / known  # (prompts, rewards)
    means = np.einsum("spmr,pr->smr", np.where(there[:, None], samples, 0.0), weights)[:, None]
    growth = np.array([_growth(len(there), int(count)) for count in known]) * widening(samples)
    result: Floats = np.where(there[:, None], means + growth * (samples - means), means)
    return result


def widening(samples: Floats) -> Floats:
    """Return (rewards,): by what ``filled`` makes deviations wider than standard errors ask, for Student's sake."""
    there = complete_prompts(samples)
    prompts = len(there)
    return np.array([_wider(int(count), prompts) for count in there.sum(axis=0)])


def _wider(known: int, prompts: int) -> float:
    return float(stretch(known - 1) / stretch(prompts - 1)) if known < prompts else 1.0


def _growth(prompts: int, known: int) -> float:
    """Return what keeps the variance of a mean of ``known`` prompts, once the rest of all ``prompts`` has that mean."""
    return math.sqrt(prompts * (prompts - 1) / (known * (known - 1)))
