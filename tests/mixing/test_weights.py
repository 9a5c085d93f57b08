from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup import mixing
from rsoup.errors import AdapterError
from rsoup.mixing.weights import point_name


@pytest.mark.parametrize(
    ("weights", "base_weight", "message"),
    [
        ([0.4, 0.5], 0.0, "sum to 0.9, not to 1"),
        ([0.4, 0.5], 0.2, "0.2 sum to 1.1"),
        ([1.5, -0.5], 0.0, "negative"),
        ([1.2], -0.2, "negative"),
        ([float("nan"), 1.0], 0.0, "finite"),
        ([1.0], 0.0, "1 weights for 2 adapters"),
    ],
)
def test_weights_off_the_simplex_are_refused(weights: list[float], base_weight: float, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        mixing.check_weights(weights, 1 if len(weights) == 1 and base_weight else 2, base_weight)


def test_extrapolation_allows_any_finite_weights() -> None:
    mixing.check_weights([1.5, -0.7], 2, 0.1, extrapolate=True)
    with pytest.raises(AdapterError, match="finite"):
        mixing.check_weights([math.inf, 1.0], 2, extrapolate=True)


def test_no_adapter_is_refused() -> None:
    with pytest.raises(AdapterError, match="no adapter"):
        mixing.check_weights([], 0)


def test_lambda_zero_is_the_first_adapter() -> None:
    assert mixing.line_weights(0.0) == (1.0, 0.0)
    assert mixing.line_weights(0.3) == (0.7, 0.3)


@given(st.integers(1, 4), st.integers(1, 12))
def test_lattice_has_every_point_once(count: int, steps: int) -> None:
    points = mixing.lattice(count, steps)
    assert len(points) == len(set(points)) == math.comb(steps + count - 1, count - 1)
    assert all(math.isclose(sum(point), 1) and min(point) >= 0 for point in points)
    corners = {tuple(float(i == j) for j in range(count)) for i in range(count)}
    assert corners <= set(points)
    assert points[0] == (1.0, *[0.0] * (count - 1))


@given(st.integers(2, 3), st.integers(1, 101))
def test_point_names_are_distinct(count: int, steps: int) -> None:
    points = mixing.lattice(count, steps)
    assert len({point_name(point, steps) for point in points}) == len(points)


def test_point_name() -> None:
    assert point_name((0.7, 0.3), 10) == "soup-0.70-0.30"


@pytest.mark.parametrize(("count", "steps"), [(2, 0), (5, 100)])
def test_impossible_grids_are_refused(count: int, steps: int) -> None:
    with pytest.raises(AdapterError, match="grid"):
        mixing.lattice(count, steps)
