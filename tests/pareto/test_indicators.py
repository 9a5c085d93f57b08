"""Indicators against closed forms and brute force."""

from __future__ import annotations

from itertools import chain, combinations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsoup.pareto.indicators import (
    additive_epsilon,
    area_over_curve,
    controllability,
    coverage,
    hypervolume,
    mean_inner_product,
    scaled,
    spacing,
    sparsity,
)

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5))
SCORES = SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=st.integers(-2, 8).map(float)))


def volume_by_inclusion_and_exclusion(scores: np.ndarray, reference: np.ndarray) -> float:
    subsets = chain.from_iterable(combinations(range(len(scores)), size) for size in range(1, len(scores) + 1))
    return sum(
        (-1) ** (len(rows) + 1) * np.prod(np.maximum(scores[list(rows)].min(axis=0) - reference, 0)) for rows in subsets
    )


@given(SCORES)
def test_hypervolume_is_the_volume_of_the_union_of_boxes(scores):
    reference = np.zeros(scores.shape[1])
    assert hypervolume(scores, reference) == pytest.approx(
        volume_by_inclusion_and_exclusion(scores, reference), abs=1e-9
    )


def test_hypervolume_of_a_staircase():
    # boxes 1 x 3, 2 x 2 and 3 x 1 above the origin: 3 + 2 + 1 unit squares
    assert hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), np.zeros(2)) == 6.0


@pytest.mark.parametrize("rewards", [7, 9])
def test_hypervolume_of_many_rewards_is_right_to_a_few_per_cent(rewards):
    generator = np.random.default_rng(2)
    scores = (generator.random((40, rewards)) - 0.1) * np.resize([1.0, 1e3, 1e-3], rewards)
    exact = moocore.hypervolume(scores, ref=np.zeros(rewards), maximise=True)
    assert hypervolume(scores, np.zeros(rewards)) == pytest.approx(exact, rel=0.05)
    assert hypervolume(np.resize(np.arange(1.0, 3.0), (20, 8)) * [0, *[1] * 7], np.zeros(8)) == 0.0


def test_a_point_below_the_reference_point_adds_nothing():
    assert hypervolume(np.array([[2.0, 2.0], [9.0, -1.0]]), np.zeros(2)) == 4.0


def test_area_over_the_curve_is_the_rest_of_the_box():
    # 6 of the 9 unit squares of the box are dominated
    staircase = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert area_over_curve(staircase, np.zeros(2), np.full(2, 3.0)) == pytest.approx(1 / 3)
    assert area_over_curve(np.array([[3.0, 3.0]]), np.zeros(2), np.full(2, 3.0)) == 0.0


def test_area_over_the_curve_leaves_a_constant_reward_out():
    assert area_over_curve(np.array([[1.0, 7.0]]), np.array([0.0, 7.0]), np.array([2.0, 7.0])) == pytest.approx(0.5)
    assert area_over_curve(np.array([[7.0]]), np.array([7.0]), np.array([7.0])) == 0.0


@given(SHAPES.flatmap(lambda s: st.tuples(*[arrays(np.float64, s, elements=st.integers(-5, 5).map(float))] * 2)))
def test_additive_epsilon_is_the_least_lift_that_covers(pair):
    first, second = pair
    lift = additive_epsilon(first, second)
    assert lift == max(min((other - own).max() for own in first) for other in second)
    assert coverage(first + lift, second) == 1.0


def test_coverage_counts_ties():
    first = np.array([[1.0, 1.0]])
    assert coverage(first, np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0], [0.5, 0.5]])) == 0.75
    assert coverage(np.array([[2.0, 0.0]]), first) == 0.0


def test_sparsity_and_spacing_by_hand():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 0.0]])
    # steps (1, 1) and (2, 3): (1 + 1 + 4 + 9) / 2; nearest neighbours at 2, 2 and 5
    assert sparsity(front) == 7.5
    assert spacing(front) == pytest.approx(np.sqrt(3.0))


def test_sparsity_and_spacing_look_at_the_front_only():
    beaten = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    assert sparsity(beaten) == 7.5
    assert spacing(beaten) == pytest.approx(np.sqrt(3.0))


def test_a_single_point_has_neither_sparsity_nor_spacing():
    assert sparsity(np.array([[1.0, 2.0]])) is None
    assert spacing(np.array([[1.0, 2.0], [1.0, 2.0]])) is None


def test_mean_inner_product_by_hand():
    assert mean_inner_product(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.5, 0.5]])) == 2.25


@pytest.mark.parametrize(
    ("scores", "expected"), [([1, 2, 9], 1.0), ([3, 2, 1], -1.0), ([1, 3, 2], 0.5), ([1, 1, 1], None)]
)
def test_controllability_is_a_rank_correlation(scores, expected):
    found = controllability(np.array([0.0, 0.5, 1.0]), np.array(scores, dtype=float))
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_reward_without_range_is_scaled_to_zero():
    assert scaled(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([1.0, 5.0]), np.array([3.0, 5.0])).tolist() == [
        [0, 0],
        [1, 0],
    ]
