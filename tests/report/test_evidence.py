"""Intervals of the report are right about as often as they say, whatever seeds and prompts have to do with it."""

from __future__ import annotations

import numpy as np
import pytest

from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import hypervolumes
from rsoup.pareto.lmc import lmc_gap
from rsoup.report.evidence import gather
from rsoup.report.measured import Measured, Model

TRUTH = np.array([[0.86, 0.18], [0.71, 0.31], [0.50, 0.41], [0.28, 0.53]])
REFERENCE = np.array([0.1, 0.05])


WEIGHTS = np.array([[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]])


def gap_of(scores: Floats) -> Floats:
    """Return what the inner two points lie above the line between the outer ones. (..., 4, 2) -> (..., 2, 2)."""
    return lmc_gap(scores, WEIGHTS, scores[..., [0, 3], :])[..., 1:3, :]


def measured_of(samples: Floats) -> Measured:
    """Return scores (seeds, prompts, 4, 2) as those of four soups."""
    models = tuple(Model(f"soup-{row}", "soup", {}) for row in range(4))
    return Measured(("one", "two"), models, samples.mean(axis=(0, 1)), (), samples)


def volumes_of(draws: Floats) -> Floats:
    return hypervolumes(draws, REFERENCE)


@pytest.mark.parametrize(
    ("seeds", "prompts", "of_seeds", "of_prompts"),
    [
        (1, 24, 0.0, 0.15),
        (1, 100, 0.0, 0.0),
        (2, 50, 0.0, 0.0),
        (2, 100, 0.0, 0.15),
        (2, 200, 0.1, 0.0),
        (3, 200, 0.05, 0.0),
        (3, 100, 0.2, 0.15),
        (5, 50, 0.0, 0.0),
        (5, 50, 0.2, 0.0),
        (5, 50, 0.05, 0.15),
    ],
)
def test_intervals_cover_the_truth_about_95_times_in_100(
    seeds: int, prompts: int, of_seeds: float, of_prompts: float
) -> None:
    """Of means, of gaps, in which a seed's or a prompt's own effect on all points cancels, and of hypervolumes."""
    generator = np.random.default_rng(7)
    means, gaps, volumes = [], [], []
    for trial in range(150):
        samples = TRUTH + generator.normal(0, 0.25, (seeds, prompts, 4, 2))
        samples += generator.normal(0, of_prompts, (prompts, 1, 2)) + generator.normal(0, of_seeds, (seeds, 1, 4, 2))
        evidence = gather(measured_of(samples), 300, trial)
        for covered, function in ((means, np.asarray), (gaps, gap_of)):
            low, high = evidence.linear(function).interval
            covered.append((low <= function(TRUTH)) & (high >= function(TRUTH)))
        low, high = evidence.estimate(volumes_of).interval
        volumes.append(low <= volumes_of(TRUTH[None])[0] <= high)
    assert 0.92 <= np.mean(means) <= 0.98
    assert 0.92 <= np.mean(gaps) <= 0.98
    assert 0.90 <= np.mean(volumes) <= 0.99  # 150 trials have a standard error of 0.02
