"""Where on the simplex a sweep measures: pure functions from settings to weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup import mixing
from rsoup.errors import RecipeError, did_you_mean
from rsoup.mixing.weights import point_name
from rsoup.recipe import EvaluationSection

DIGITS = 12
"""Decimals that tell weights apart."""

Weights = tuple[float, ...]


def lay_out(names: Sequence[str], settings: EvaluationSection, seed: int) -> list[Weights]:
    """Return the weights of every mix of ``names`` to evaluate, each ingredient by itself included, none twice.

    The mixes are those of ``at``, or random ones, or the lattice with its extrapolation; and the uniform one.
    """
    corners = [tuple(float(name == own) for own in names) for name in names]
    given = [_by_name(weights, names) for weights in settings.at]
    if len(names) < 2:
        return corners
    if given:
        points = corners + given
    elif settings.random:
        points = corners + random_points(len(names), settings.random, seed)
    elif settings.extrapolate:
        points = _longer_line(names, settings.lambdas - 1, settings.extrapolate)
    else:
        points = mixing.lattice(len(names), settings.lambdas - 1)
    if settings.uniform:
        points = [*points, (1 / len(names),) * len(names)]
    different: dict[Weights, Weights] = {}
    for weights in points:
        different.setdefault(rounded(weights), weights)
    return list(different.values())


def rounded(weights: Sequence[float]) -> Weights:
    """Return weights with the digits that tell them apart."""
    return tuple(round(weight, DIGITS) + 0.0 for weight in weights)  # + 0.0 turns -0.0 into 0.0


def random_points(count: int, points: int, seed: int) -> list[Weights]:
    """Return random points of the simplex, uniformly distributed, in steps of 0.01; the first ones are always the same.

    The largest weight takes what rounding leaves.
    """
    drawn = []
    for index in range(points):
        parts = np.random.default_rng([seed, index]).dirichlet(np.ones(count))
        drawn.append(in_steps(parts, 100))
    return drawn


def in_steps(weights: np.ndarray, steps: int) -> Weights:
    """Return the weights in multiples of 1 / steps; the largest takes what rounding leaves."""
    parts = np.round(np.asarray(weights) * steps).astype(int)
    parts[int(np.argmax(parts))] += steps - int(parts.sum())
    return tuple((parts / steps).tolist())


def name_of(kind: str, weights: Sequence[float], steps: int) -> str:
    """Return the name of a point, such as soup-0.70-0.30, with the digits of the grid it is on, if it is."""
    if all(abs(weight * steps - round(weight * steps)) < 1e-9 for weight in weights):
        return kind + point_name(weights, steps).removeprefix("soup")
    digits = next((n for n in range(2, 6) if all(abs(round(weight, n) - weight) < 1e-9 for weight in weights)), 6)
    name = "-".join([kind, *(f"{weight:.{digits}f}" for weight in weights)])
    if name == name_of(kind, in_steps(np.array(weights), steps), steps):  # 0.33 beside a third
        name = "-".join([kind, *(f"{weight:.{digits + 2}f}" for weight in weights)])
    return name


def _longer_line(names: Sequence[str], steps: int, beyond: float) -> list[Weights]:
    if len(names) != 2:
        raise RecipeError(
            f"evaluation.extrapolate goes on with a line, and there are {len(names)} ingredients.",
            "Give weights in evaluation.at (--at); they may be negative.",
        )
    more = math.floor(beyond * steps + 1e-9)
    if not more:
        raise RecipeError(
            f"evaluation.extrapolate: {beyond:g} is less than a step of the line, {1 / steps:g}.",
            "Go further (--extrapolate), or in smaller steps (--lambdas).",
        )
    return [((steps - place) / steps, place / steps) for place in range(-more, steps + more + 1)]


def _by_name(weights: Mapping[str, float], names: Sequence[str]) -> Weights:
    shown = ",".join(f"{name}={weight:g}" for name, weight in weights.items())
    for name in weights:
        if name not in names:
            raise RecipeError(
                f"evaluation.at: {shown}: there is no ingredient {name!r}.",
                f"{did_you_mean(name, names)} base needs evaluation.with_base (--with-base).",
            )
    total = math.fsum(weights.values())
    if abs(total - 1) > 1e-6:
        raise RecipeError(
            f"evaluation.at: {shown}: the weights sum to {total:g}, not to 1.",
            "Make them sum to 1; with --with-base the rest may go to base.",
        )
    return tuple(weights.get(name, 0.0) for name in names)
