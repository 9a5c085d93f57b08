"""Choosing one point."""

from __future__ import annotations

import numpy as np
import pytest

from rsoup.pareto.choice import best_at_least, best_for, halves, knee, nearest, regret, simplex_lattice

FRONT = np.array([[1.0, 0.0], [0.8, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(("mu", "expected"), [([1, 0], 0), ([0.5, 0.5], 1), ([0, 1], 2)])
def test_best_for_a_preference(mu, expected):
    assert best_for(FRONT, np.array(mu, dtype=float)) == expected


def test_best_under_a_floor():
    mu = np.array([1.0, 0.0])
    assert best_at_least(FRONT, np.array([-np.inf, 0.4]), mu) == 1
    assert best_at_least(FRONT, np.array([-np.inf, 0.5]), mu) == 1  # a floor may be met exactly
    assert best_at_least(FRONT, np.array([-np.inf, 1.1]), mu) is None


def test_the_knee_bulges_most_whatever_the_units():
    assert knee(FRONT) == 1
    assert knee(FRONT * np.array([1000.0, 0.01])) == 1


def test_the_knee_is_on_the_front():
    assert knee(np.array([[0.7, 0.7], [1.0, 0.0], [0.6, 0.6], [0.0, 1.0]])) == 0


def test_the_knee_of_one_point_is_that_point():
    assert knee(np.array([[0.3, 0.2]])) == 0


def test_nearest_weights_take_the_first_of_equal_ones():
    weights = np.array([[0.0, 1.0], [0.4, 0.6], [0.6, 0.4]])
    assert nearest(weights, np.array([0.5, 0.5])) == 1
    assert nearest(weights, np.array([0.05, 0.95])) == 0


def test_halves_split_all_prompts():
    first, second = halves(9, seed=0)
    assert (len(first), len(second)) == (4, 5)
    assert sorted([*first, *second]) == list(range(9))


def test_regret_by_hand():
    # mu . R of the two points per prompt: (1, 0), (3, 1), (2, 2)
    samples = np.array([[[1.0], [0.0]], [[3.0], [1.0]], [[2.0], [2.0]]])
    lost = regret(samples, np.array([1.0]), 1)
    assert lost.value == 1.0
    assert lost.stderr == pytest.approx(1 / np.sqrt(3))
    assert lost.best == 0
    assert regret(samples, np.array([1.0]), 0).value == 0.0


def test_the_lattice_holds_every_mix_of_steps_once():
    rows = simplex_lattice(3, 4)
    assert len(rows) == 15  # (4 + 2 choose 2)
    assert len({tuple(row) for row in rows}) == 15
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert rows[0].tolist() == [1, 0, 0]
    assert rows[-1].tolist() == [0, 0, 1]
