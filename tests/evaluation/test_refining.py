"""Refinement finds what a grid would miss, and says the same whenever it is asked the same."""

from __future__ import annotations

import numpy as np
import pytest

from rsoup.evaluation.layout import random_points
from rsoup.evaluation.refining import next_point, predict
from rsoup.mixing import lattice
from rsoup.pareto.indicators import hypervolume


def rewards(weights: np.ndarray) -> np.ndarray:
    """Return two rewards that trade off along the line, with the knee of the front at one end of it."""
    w = weights[:, 0]
    return np.stack([w, 1 - w**6], axis=1)


def volume(weights: np.ndarray) -> float:
    return hypervolume(rewards(weights), np.array([0.0, 0.0]))


def refined(weights: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    for _ in range(count):
        chosen = next_point(weights, rewards(weights), seed)
        assert chosen is not None
        weights = np.vstack([weights, chosen])
    return weights


def test_refining_gains_more_than_a_finer_grid_of_as_many_points() -> None:
    found = refined(np.array(lattice(2, 2)), 4)
    grid = np.array(lattice(2, len(found) - 1))
    assert volume(found) > volume(grid) + 0.01
    assert volume(found) > max(volume(np.vstack([lattice(2, 2), random_points(2, 4, seed)])) for seed in range(5))


def test_the_next_point_is_new_and_on_the_simplex() -> None:
    found = refined(np.array(lattice(3, 2)), 5)
    assert len(np.unique(found.round(9), axis=0)) == len(found)
    assert found.sum(1) == pytest.approx(np.ones(len(found)))
    assert found.min() >= 0


def test_the_same_measurements_give_the_same_choice() -> None:
    start = np.array(lattice(2, 4))
    assert refined(start, 3).tolist() == refined(start, 3).tolist()


def test_nothing_is_left_on_a_line_that_was_measured_at_every_step() -> None:
    line = np.array(lattice(2, 100))
    assert next_point(line, rewards(line), 0) is None


def test_predictions_follow_the_measurements() -> None:
    weights = np.array(lattice(2, 8))
    values = np.sin(3 * weights[:, 0])
    between = np.array([[0.3, 0.7], [0.55, 0.45]])
    mean, deviation = predict(weights, values, between)
    assert mean == pytest.approx(np.sin(3 * between[:, 0]), abs=0.02)
    measured, sure = predict(weights, values, weights)
    assert measured == pytest.approx(values, abs=0.02)
    assert sure.max() < 0.1 * values.std()
    assert deviation.max() < values.std()


def test_a_reward_that_is_the_same_everywhere_is_predicted_so() -> None:
    mean, deviation = predict(np.array(lattice(2, 4)), np.full(5, 0.25), np.array([[0.3, 0.7]]))
    assert (mean.tolist(), deviation.tolist()) == ([0.25], [0.0])
