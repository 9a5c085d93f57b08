"""Dominance against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsoup.pareto.dominance import dominates, non_dominated, weakly_dominates

# a coarse grid, so that ties and duplicates are common
SCORES = st.tuples(st.integers(1, 25), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-3, 3).map(float))
)


def beats(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one >= other).all() and (one > other).any())


@given(SCORES)
def test_front_is_what_nothing_beats(scores):
    expected = [not any(beats(other, own) for other in scores) for own in scores]
    assert non_dominated(scores).tolist() == expected


@given(SCORES)
def test_dominance_matrix_is_its_definition(scores):
    assert dominates(scores, scores).tolist() == [[beats(a, b) for b in scores] for a in scores]
    assert weakly_dominates(scores, scores).diagonal().all()


def test_equal_points_stand_on_the_front_together():
    assert non_dominated(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])).tolist() == [True, True, False]


def test_constant_reward_leaves_the_other_to_decide():
    assert non_dominated(np.array([[1.0, 5.0], [2.0, 5.0]])).tolist() == [False, True]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_with_its_row(value):
    with pytest.raises(ValueError, match="row 1"):
        non_dominated(np.array([[1.0, 2.0], [value, 0.0]]))


@pytest.mark.parametrize("shape", [(0, 2), (3,)])
def test_no_points_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        non_dominated(np.zeros(shape))
