"""Fronts beside the soups': which mixes they have, in which weights, of adapters as they were when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import RecipeError, did_you_mean
from rsoup.evaluation.ingredients import BASE
from rsoup.evaluation.layout import Weights, lay_out, name_of, rounded
from rsoup.evaluation.points import PlannedPoint
from rsoup.pareto.dominance import Floats
from rsoup.recipe import EvaluationSection, FrontSection

SMALLEST = 1e-9
"""Singular value, of the largest, below which trainings do not span the rewards."""

Trained = Mapping[str, Mapping[str, float]]
"""What adapters were trained on: the weights of rewards by the adapter's name; empty where that is not known."""


@dataclass(frozen=True)
class LaidFront:
    """The names that a front is made of, as they are in the plan, and its mixes of these."""

    name: str
    ingredients: tuple[str, ...]
    places: tuple[Weights, ...]
    steps: int


def name_after(name: str, step: int | None) -> str:
    """Return the name of an adapter as it was after some steps of its training."""
    return name if step is None or name == BASE else f"{name}@{step}"


def lay_front(name: str, front: FrontSection, trained: Trained, settings: EvaluationSection) -> LaidFront:
    """Return the mixes of a front; RecipeError if it names what is not there, or cannot be solved."""
    for own in front.of:
        if own not in trained and own != BASE:
            known = [*trained, BASE]
            raise RecipeError(f"evaluation.fronts.{name}: there is no adapter {own!r}.", did_you_mean(own, known))
    ingredients = tuple(name_after(own, front.after) for own in front.of)
    if front.preferences is not None:
        places = _serving(name, front, trained, front.preferences - 1)
        return LaidFront(name, ingredients, places, front.preferences - 1)
    steps = (front.lambdas or 2) - 1
    alone: dict[str, float] = {front.of[0]: 1.0}
    own_settings = settings.model_copy(
        update={
            "lambdas": steps + 1,
            "extrapolate": front.extrapolate,
            "random": 0,
            "uniform": False,
            "at": front.at or ([] if front.lambdas else [alone]),
        }
    )
    try:
        places = tuple(lay_out(front.of, own_settings, 0))
    except RecipeError as problem:
        message = problem.message.replace("evaluation.", f"evaluation.fronts.{name}.", 1)
        raise RecipeError(message, "Change extrapolate or lambdas, or give weights in at.") from problem
    if front.at:
        given = {rounded([weights.get(own, 0.0) for own in front.of]) for weights in front.at}
        places = tuple(place for place in places if rounded(place) in given)
    return LaidFront(name, ingredients, places, steps)


def serving_weights(trained_on: Floats, preference: Floats) -> Floats:
    """Return the weights of adapters whose mix of rewards is the preference: they solve sum_j w_j B_j = mu.

    ``trained_on`` (adapters, rewards) has the rewards' weights in each training, rows that sum to 1; there are as many
    adapters as rewards. The weights sum to 1 as the preference does, and are negative where it lies beyond the
    trainings. Raise ValueError if the trainings do not span the rewards.
    Source: Bone Soups (arXiv 2502.10762), where B is the backbones' reward matrix.
    """
    sizes = np.linalg.svd(trained_on, compute_uv=False)
    if trained_on.shape[0] != trained_on.shape[1] or sizes[-1] < SMALLEST * sizes[0]:
        raise ValueError("the trainings do not span the rewards")
    return np.asarray(np.linalg.solve(trained_on.T, preference))


def _serving(name: str, front: FrontSection, trained: Trained, steps: int) -> tuple[Weights, ...]:
    """Return the weights that serve each preference of a lattice."""
    weightings = [trained[own] for own in front.of]
    unknown = [own for own, weights in zip(front.of, weightings, strict=True) if not any(weights.values())]
    if unknown:
        raise RecipeError(
            f"evaluation.fronts.{name}: what {unknown[0]} was trained on is not known, so that no preference is.",
            "Give weights in at, or leave the front out.",
        )
    rewards = list(dict.fromkeys(own for weights in weightings for own, weight in weights.items() if weight))
    if len(rewards) != len(front.of):
        raise RecipeError(
            f"evaluation.fronts.{name}: preferences over {len(rewards)} rewards ({', '.join(rewards)}) need as many "
            f"adapters, and of names {len(front.of)}.",
            "Name one adapter for each reward, or give weights in at.",
        )
    matrix = np.array([[weights.get(own, 0.0) for own in rewards] for weights in weightings])
    matrix /= matrix.sum(axis=1, keepdims=True)
    try:
        found = [serving_weights(matrix, np.array(mu)) for mu in mixing.lattice(len(rewards), steps)]
    except ValueError as problem:
        raise RecipeError(
            f"evaluation.fronts.{name}: {', '.join(front.of)} were trained on mixes of rewards that do not tell the "
            "rewards apart.",
            "Name trainings on different mixes.",
        ) from problem
    return tuple(rounded(weights.tolist()) for weights in found)


@dataclass(frozen=True)
class Laid:
    """The points of a sweep with those that fronts add, the ids of each front's, and adapters as they were earlier.

    The latter are told by their names as the name in the end and the step.
    """

    points: tuple[PlannedPoint, ...]
    fronts: dict[str, tuple[str, ...]]
    early: dict[str, tuple[str, int]]


def lay_fronts(points: Sequence[PlannedPoint], trained: Trained, settings: EvaluationSection) -> Laid:
    """Return points with those of all fronts; a mix that is a point already, under whatever name, counts there."""
    found = list(points)
    fronts: dict[str, tuple[str, ...]] = {}
    early: dict[str, tuple[str, int]] = {}
    ids = {point.made_of: point.id for point in points if point.kind not in ("ensemble", "mod")}
    for name, section in settings.fronts.items():
        front = lay_front(name, section, trained, settings)
        own = []
        for place in front.places:
            point = _front_point(front, place)
            if point.made_of not in ids:
                ids[point.made_of] = point.id
                found.append(point)
            own.append(ids[point.made_of])
        fronts[name] = tuple(dict.fromkeys(own))
        if section.after is not None:
            pairs = zip(front.ingredients, section.of, strict=True)
            early |= {name_then: (of, section.after) for name_then, of in pairs if of != BASE}
    return Laid(tuple(found), fronts, early)


def trained_on(adapter: Adapter) -> dict[str, float]:
    """Return the weights of the rewards that an adapter was trained on; nothing where they are not known."""
    told = adapter.provenance.raw.get("rewards") if adapter.provenance is not None else None
    return {str(name): float(weight) for name, weight in told.items()} if isinstance(told, dict) else {}


def _front_point(front: LaidFront, place: Weights) -> PlannedPoint:
    shares = dict(zip(front.ingredients, place, strict=True))
    weights = {name: weight for name, weight in shares.items() if name != BASE}
    lam = place[1] if len(place) == 2 else None
    if not any(weights.values()):
        return PlannedPoint(BASE, "base", {}, lam)
    return PlannedPoint(_id_of(front, place), "mix", weights, lam, shares.get(BASE, 0.0))


def with_adapters(settings: EvaluationSection, trained: Trained) -> tuple[EvaluationSection, list[str]]:
    """Return the settings without the fronts whose adapters were not given, and a word on each of these."""
    lacking = {
        name: next((own for own in front.of if own not in trained and own != BASE), None)
        for name, front in settings.fronts.items()
    }
    told = [f"The front {name} is left out: {own} is not among the adapters." for name, own in lacking.items() if own]
    kept = {name: front for name, front in settings.fronts.items() if lacking[name] is None}
    return settings.model_copy(update={"fronts": kept}), told


def _id_of(front: LaidFront, place: Weights) -> str:
    """Return the id of a mix of a front; an ingredient by itself goes by its own name."""
    used = {own: weight for own, weight in zip(front.ingredients, rounded(place), strict=True) if weight}
    if list(used.values()) == [1.0]:
        return next(iter(used))
    return name_of(front.name, list(place), front.steps)
