"""Where a sweep measures: lattices, random and given weights, lines that go on, and what they are called."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rsoup.errors import RecipeError, RsoupError
from rsoup.evaluation.layout import in_steps, lay_out, name_of, random_points
from rsoup.recipe import EvaluationSection
from rsoup.recipe_file import parse_recipe


def points(names: str, seed: int = 0, **settings: Any) -> list[tuple[float, ...]]:
    return lay_out(names.split(), EvaluationSection(**settings), seed)


def test_a_line_goes_on_in_the_same_steps() -> None:
    line = points("a b", lambdas=3, extrapolate=0.7)
    assert line == [(1.5, -0.5), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (-0.5, 1.5)]


def test_only_a_line_goes_on() -> None:
    with pytest.raises(RecipeError, match="there are 3 ingredients"):
        points("a b c", extrapolate=0.5)


def test_random_points_lie_on_the_simplex_after_the_corners() -> None:
    found = points("a b c d e", random=40)
    assert found[:5] == [tuple(row) for row in np.eye(5).tolist()]
    assert len(found) == 45
    assert all(math.isclose(sum(row), 1) and min(row) >= 0 for row in found)
    assert all(abs(weight * 100 - round(weight * 100)) < 1e-9 for row in found for weight in row)


def test_random_points_are_uniform_on_the_simplex() -> None:
    """Under the uniform distribution the mean of w_1 among three is 1/3 and P(w_1 > 1/2) is (1/2)^2."""
    drawn = np.array(random_points(3, 2000, seed=0))
    assert drawn.mean(0) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert (drawn[:, 0] > 0.5).mean() == pytest.approx(0.25, abs=0.03)


def test_more_random_points_keep_the_first_ones() -> None:
    assert points("a b c", random=8)[:6] == points("a b c", random=3)
    assert points("a b c", random=3) != points("a b c", random=3, seed=1)


def test_given_weights_take_the_place_of_the_lattice() -> None:
    found = points("a b c", at=[{"a": 0.2, "c": 0.8}, {"a": 1.5, "b": -0.5}])
    assert found == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0, 0.8), (1.5, -0.5, 0)]


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"a": 0.5, "b": 0.4}, "sum to 0.9, not to 1"), ({"a": 0.5, "x": 0.5}, "there is no ingredient 'x'")],
)
def test_weights_that_do_not_fit_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        points("a b", at=[weights])


def test_the_uniform_mix_comes_once() -> None:
    assert points("a b c", lambdas=2, uniform=True) == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1 / 3, 1 / 3, 1 / 3)]
    assert points("a b", lambdas=3, uniform=True) == points("a b", lambdas=3)
    assert points("a b c", lambdas=4, uniform=True).count((1 / 3, 1 / 3, 1 / 3)) == 1


def test_one_ingredient_stands_alone() -> None:
    assert points("a") == [(1.0,)]
    assert points("") == []


@pytest.mark.parametrize(
    ("weights", "steps", "name"),
    [
        ((0.7, 0.3), 10, "soup-0.70-0.30"),
        ((0.625, 0.375), 10, "soup-0.625-0.375"),
        ((1.5, -0.5), 2, "soup-1.50--0.50"),
        ((1 / 3, 2 / 3), 3, "soup-0.33-0.67"),
        ((1 / 3, 2 / 3), 10, "soup-0.333333-0.666667"),
    ],
)
def test_names_have_the_digits_they_need(weights: tuple[float, ...], steps: int, name: str) -> None:
    assert name_of("soup", weights, steps) == name


def test_rounding_to_steps_keeps_the_sum() -> None:
    assert in_steps(np.array([0.334, 0.333, 0.333]), 100) == (0.34, 0.33, 0.33)
    assert in_steps(np.array([0.005, 0.005, 0.99]), 100) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 2}, "several greedy completions"),
        ({"random": 3, "at": [{"a": 1.0}]}, "random and at both"),
        ({"random": 3, "extrapolate": 0.5}, "extrapolate goes on with a line"),
        ({"compare": ["mod", "mod"]}, "twice"),
        ({"compare": ["mod"], "engine": "vllm"}, "compare needs the experts' logits"),
        ({"batch_size": "big"}, "batch_size"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    content = {"model": {"base": "x"}, "task": {"name": "reviews"}, "rewards": ["brief"], "evaluation": settings}
    with pytest.raises(RsoupError, match=message):
        parse_recipe(content, "mine.yaml")


def test_a_line_that_would_not_go_on_is_refused() -> None:
    with pytest.raises(RsoupError, match=r"extrapolate: 0\.05 is less than a step of the line, 0\.1"):
        lay_out(("a", "b"), EvaluationSection(lambdas=11, extrapolate=0.05), 0)
    assert len(lay_out(("a", "b"), EvaluationSection(lambdas=11, extrapolate=0.1), 0)) == 13


@pytest.mark.parametrize("steps", [3, 6, 7, 12])
def test_every_hundredth_of_a_line_has_a_name_beside_those_of_the_grid(steps: int) -> None:
    grid = {(place / steps, 1 - place / steps) for place in range(steps + 1)}
    hundredths = {(place / 100, round(1 - place / 100, 2)) for place in range(101)}
    points = {in_steps(np.array(point), 2100) for point in grid | hundredths}  # one of a kind: 2100 has all the steps
    assert len({name_of("soup", point, steps) for point in points}) == len(points)
