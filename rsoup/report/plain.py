"""Points that come as bare numbers under labels: a CSV row or a printed line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rsoup.errors import ResultsError, did_you_mean
from rsoup.evaluation.results import Kind
from rsoup.pareto.dominance import Floats
from rsoup.report.measured import Measured, Model, Source, weights_id

LARGEST = 1e100
"""Beyond this a number is no score: products of several would not be finite."""


@dataclass(frozen=True)
class PlainPoint:
    """One line of input; ``where`` names it in errors."""

    where: str
    kind: Kind
    values: Mapping[str, float]
    stderr: Mapping[str, float] = field(default_factory=dict)
    id: str | None = None
    lam: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    mu: tuple[float, ...] | Mapping[str, float] | None = None
    seed: str = ""


def measured_from(
    points: list[PlainPoint], objectives: Mapping[str, str], source: Source, notes: tuple[str, ...]
) -> Measured:
    """Return the models behind plain points, scored by objectives such as ``{"r2": "LABEL1-LABEL2"}``."""
    rewards = tuple(objectives)
    seeds = list(dict.fromkeys(point.seed for point in points))
    by_seed = [[point for point in points if point.seed == seed] for seed in seeds]
    scores = [_scores(own, objectives) for own in by_seed]
    experts, told = _experts_on_line(by_seed[0], scores[0], rewards)
    models = [[_model(point, rewards, experts) for point in own] for own in by_seed]
    tables = [{model.id: row for row, model in enumerate(own)} for own in models]
    for own, table in zip(by_seed, tables, strict=True):
        _refuse_twins(source.path, own, table, set(tables[0]))
    pooled = np.stack(
        [own[[table[model.id] for model in models[0]]] for own, table in zip(scores, tables, strict=True)]
    )
    return Measured(
        rewards=rewards,
        models=tuple(models[0]),
        scores=pooled.mean(axis=0),
        sources=(source,),
        samples=pooled[:, None] if len(seeds) > 1 else None,
        stderr=_stderrs(points, objectives) if len(seeds) == 1 else None,
        experts={name: name for name in rewards if any(name in model.weights for model in models[0])},
        notes=notes + told,
    )


def value_of(expression: str, point: PlainPoint) -> float:
    """Return the value of a label, or of LABEL1-LABEL2; a label may itself contain a dash."""
    values = point.values
    if expression in values:
        return values[expression]
    for place, letter in enumerate(expression):
        plus, minus = expression[:place], expression[place + 1 :]
        if letter == "-" and plus in values and minus in values:
            return values[plus] - values[minus]
    raise ResultsError(
        f"{point.where}: has no label {expression!r}.",
        f"{did_you_mean(expression, values)} It has {', '.join(values)}.",
    )


def _scores(points: list[PlainPoint], objectives: Mapping[str, str]) -> Floats:
    return np.array([[value_of(expression, point) for expression in objectives.values()] for point in points])


def _stderrs(points: list[PlainPoint], objectives: Mapping[str, str]) -> Floats | None:
    """Return (points, rewards) where every point tells the error of every reward; a difference of labels has none."""
    rows = [[point.stderr.get(expression) for expression in objectives.values()] for point in points]
    return None if any(value is None for row in rows for value in row) else np.array(rows, dtype=float)


def _experts_on_line(
    points: list[PlainPoint], scores: Floats, rewards: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the experts in the order of their weights (1 - lambda, lambda), and what to tell about that order.

    The end of the line that scores more on a reward than the other end is that reward's expert; where the ends do not
    say so, lambda = 0 is the expert of the first reward.
    """
    if len(rewards) != 2:
        return ("first", "second"), ()
    ends = {point.lam: row for row, point in enumerate(points) if point.kind in ("soup", "expert")}
    if 0.0 not in ends or 1.0 not in ends or any(point.weights for point in points):
        return rewards, ()
    rise = scores[ends[1.0]] - scores[ends[0.0]]
    if rise[0] >= 0 >= rise[1] and rise.any():
        return (rewards[1], rewards[0]), (
            f"lambda is kept as the file has it: the end at lambda = 0 is best at {rewards[1]}, so it is taken for "
            f"that reward's expert.",
        )
    return rewards, ()


def _model(point: PlainPoint, rewards: tuple[str, ...], experts: tuple[str, ...]) -> Model:
    mu = _mu(point, rewards)
    weights = _weights(point, rewards, experts)
    alone = [name for name, weight in weights.items() if weight] if sorted(set(weights.values())) == [0.0, 1.0] else []
    kind: Kind = "expert" if point.kind == "soup" and len(alone) == 1 else point.kind
    name = point.id or _default_id(kind, weights, alone, mu, point)
    if kind == "morl" and not weights:
        weights = {name: 1.0}
    return Model(name, kind, weights, point.lam, mu)


def _weights(point: PlainPoint, rewards: tuple[str, ...], experts: tuple[str, ...]) -> dict[str, float]:
    """Return the weights given, or those that lambda gives the two experts, in the order of the rewards."""
    lam = point.lam
    if point.weights or lam is None or point.kind not in ("soup", "expert"):
        return dict(point.weights)
    order = rewards if set(rewards) == set(experts) else experts
    return {name: lam if name == experts[1] else 1 - lam for name in order}


def _default_id(
    kind: Kind, weights: Mapping[str, float], alone: list[str], mu: Mapping[str, float] | None, point: PlainPoint
) -> str:
    if kind == "base":
        return "base"
    if len(alone) == 1:
        return alone[0]
    parts = mu if kind == "morl" else weights
    return weights_id(kind, parts) if parts else f"{kind} {point.where.rpartition(' ')[2]}"


def _mu(point: PlainPoint, rewards: tuple[str, ...]) -> dict[str, float] | None:
    if point.mu is None:
        return None
    if isinstance(point.mu, Mapping):
        unknown = [name for name in point.mu if name not in rewards]
        if unknown:
            raise ResultsError(
                f"{point.where}: mu of {unknown[0]!r}, which is no reward.", did_you_mean(unknown[0], rewards)
            )
        return {name: point.mu.get(name, 0.0) for name in rewards}
    if len(point.mu) != len(rewards):
        raise ResultsError(
            f"{point.where}: one mu says nothing about {len(rewards)} rewards.",
            "Give a column mu:NAME for each reward.",
        )
    return dict(zip(rewards, point.mu, strict=True))


def _refuse_twins(path: str, points: list[PlainPoint], table: Mapping[str, int], known: set[str]) -> None:
    if len(table) != len(points):
        raise ResultsError(
            f"{path}: {len(points)} points have only {len(table)} different ids: {', '.join(table)}.",
            "Tell them apart with a column id, or repeats of a training with a column seed.",
        )
    if set(table) != known:
        odd = sorted(set(table) ^ known)[0]
        raise ResultsError(
            f"{path}: the point {odd!r} is not there for every seed.", "Measure the same points for every seed."
        )


def require_path(path: Path) -> str:
    """Return the text of an input file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise ResultsError(f"{path}: cannot be read ({problem.strerror}).", "Check the path.") from problem
    except UnicodeDecodeError as problem:
        raise ResultsError(f"{path}: is not UTF-8 text.", "Give results.json, a CSV or a printed block.") from problem
