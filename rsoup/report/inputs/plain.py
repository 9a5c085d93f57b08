"""Points that come as bare numbers under labels: a CSV row or a printed line."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rsoup.errors import ResultsError, did_you_mean, reason_of
from rsoup.evaluation.results import Kind
from rsoup.harness.metrics import LARGEST
from rsoup.pareto.direction import signs_of, turned
from rsoup.pareto.dominance import Floats
from rsoup.recipe import Direction
from rsoup.recipe.direction import sounds_lower
from rsoup.report.measured import Measured, Model, Source, weights_id

ROUNDING = 1e-9
FARTHEST = (-3.0, 4.0)
"""Weights beyond these are percentages or mistakes: no mix goes so far past its experts."""


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
    mu: Mapping[str, float] | None = None  # label or reward -> weight in training
    seed: str = ""


def measured_from(
    points: list[PlainPoint],
    objectives: Mapping[str, str],
    sources: tuple[Source, ...],
    notes: tuple[str, ...],
    minimized: frozenset[str] = frozenset(),
) -> Measured:
    """Return the models behind plain points, scored by objectives such as ``{"r2": "LABEL1-LABEL2"}``."""
    path = sources[0].path
    rewards = tuple(objectives)
    seeds = list(dict.fromkeys(point.seed for point in points))
    by_seed = [[point for point in points if point.seed == seed] for seed in seeds]
    scores = [_scores(own, objectives) for own in by_seed]
    experts, told = _experts_on_line(by_seed, scores, objectives, minimized)
    models = [[_model(point, objectives, experts) for point in own] for own in by_seed]
    for own in models:
        _refuse_twins(path, own)
    tables = [{model.id: row for row, model in enumerate(own)} for own in models]
    for own, table in zip(models[1:], tables[1:], strict=True):
        _refuse_unlike(path, {model.id: model for model in models[0]}, own, table)
    pooled = np.stack(
        [own[[table[model.id] for model in models[0]]] for own, table in zip(scores, tables, strict=True)]
    )
    return Measured(
        rewards=rewards,
        models=tuple(models[0]),
        scores=pooled.mean(axis=0),
        sources=sources,
        samples=pooled[:, None] if len(seeds) > 1 else None,
        stderr=_stderrs(points, objectives) if len(seeds) == 1 else None,
        experts=_experts(points, models[0], objectives),
        notes=notes + told,
        minimized=minimized,
    )


def terms_of(expression: str, known: Collection[str]) -> tuple[tuple[float, str], ...]:
    """Return the signed labels of LABEL, -LABEL or LABEL1-LABEL2, none if one is unknown; a label may hold dashes."""
    if expression in known:
        return ((1.0, expression),)
    dashes = [place for place, letter in enumerate(expression) if letter == "-"]
    for place in dashes:
        first, second = expression[:place].strip(), expression[place + 1 :].strip()
        if second in known and not first:
            return ((-1.0, second),)
        if second in known and first in known:
            return (1.0, first), (-1.0, second)
    return ()


def labels_of(expression: str, known: Collection[str]) -> tuple[str, ...]:
    """Return the labels of an objective, none if one is unknown."""
    return tuple(label for _, label in terms_of(expression, known))


def lowered(
    objectives: Mapping[str, str], known: Collection[str], ways: Mapping[str, Direction], asked: Collection[str]
) -> frozenset[str]:
    """Return the objectives of which lower values are better: those ``asked`` for, and what the ``ways`` of labels say.

    A difference goes the way of its first label, and the opposite of a label the opposite way.
    """
    found = set(asked)
    for name, expression in objectives.items():
        sign, label = next(iter(terms_of(expression, known)), (1.0, expression))
        if ways.get(label) == ("minimize" if sign > 0 else "maximize"):
            found.add(name)
    return frozenset(found)


def higher_counts(name: str) -> str:
    """Return what is said of an objective whose direction nobody told."""
    return f"Higher counts as better for {name}; if lower is better, add --minimize {shlex.quote(name)}."


def doubtful(
    objectives: Mapping[str, str], known: Collection[str], ways: Mapping[str, Direction], minimized: Collection[str]
) -> tuple[str, ...]:
    """Return what is said of objectives whose names suggest that lower is better, where nobody told the direction."""
    found = []
    for name, expression in objectives.items():
        sign, label = next(iter(terms_of(expression, known)), (1.0, expression))
        told = name in minimized or label in ways
        if not told and (sounds_lower(name) or (sign > 0 and sounds_lower(label))):
            found.append(name)
    return tuple(map(higher_counts, found))


def in_file_order(objectives: Mapping[str, str], labels: list[str]) -> tuple[str, ...]:
    """Return the rewards in the order in which their labels stand in the file."""
    return tuple(sorted(objectives, key=lambda name: labels.index(labels_of(objectives[name], labels)[0])))


def value_of(expression: str, point: PlainPoint) -> float:
    """Return the value of an objective."""
    terms = terms_of(expression, point.values)
    if not terms:
        raise unknown_label(point.where, expression, list(point.values))
    return sum(sign * point.values[label] for sign, label in terms) + 0.0


def unknown_label(where: str, expression: str, known: list[str]) -> ResultsError:
    """Return the refusal of an objective whose labels the input does not have."""
    return ResultsError(
        f"{where}: has no label {expression!r}.", f"{did_you_mean(expression, known)} It has {', '.join(known)}."
    )


def as_weight(where: str, what: str, value: float) -> float:
    """Return a weight of a mix, 0 or 1 where only rounding parts it from that; mixes may go beyond their experts.

    Refuses a percentage, or another number that is no weight.
    """
    if not FARTHEST[0] <= value <= FARTHEST[1]:
        raise ResultsError(f"{where}: {what} is {value:g}, no weight.", "Write weights as shares from 0 to 1.")
    return float(round(value)) if abs(value - round(value)) < ROUNDING else value


def _scores(points: list[PlainPoint], objectives: Mapping[str, str]) -> Floats:
    return np.array([[value_of(expression, point) for expression in objectives.values()] for point in points])


def _stderrs(points: list[PlainPoint], objectives: Mapping[str, str]) -> Floats | None:
    """Return (points, rewards), NaN where an error is not told; a difference of labels has none."""
    rows = [
        [point.stderr.get(_alone(expression, point.values), np.nan) for expression in objectives.values()]
        for point in points
    ]
    return np.array(rows) if np.isfinite(rows).any() else None


def _alone(expression: str, known: Collection[str]) -> str:
    """Return the label of an objective that is one label or its opposite, else the expression."""
    terms = terms_of(expression, known)
    return terms[0][1] if len(terms) == 1 else expression


def _experts_on_line(
    by_seed: list[list[PlainPoint]],
    scores: list[Floats],
    objectives: Mapping[str, str],
    minimized: frozenset[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the experts in the order of their weights (1 - lambda, lambda), and what to tell about that order.

    The end of the line that scores better on a reward than the other end is that reward's expert; where the ends do not
    say so, lambda = 0 is the expert of the first reward of the file.
    """
    if len(objectives) != 2:
        return ("first", "second"), ()
    rewards, in_file = tuple(objectives), in_file_order(objectives, list(by_seed[0][0].values))
    rises = []
    for points, own in zip(by_seed, scores, strict=True):
        ends = {point.lam: row for row, point in enumerate(points) if point.kind in ("soup", "expert")}
        if 0.0 not in ends or 1.0 not in ends or any(point.weights for point in points):
            return in_file, ()
        rises.append(own[ends[1.0]] - own[ends[0.0]])
    rise = turned(np.mean(rises, axis=0), signs_of(rewards, minimized))
    if not rise.any() or rise[0] * rise[1] > 0:
        return in_file, ()
    experts = rewards if rise[1] > rise[0] else rewards[::-1]
    told = f"lambda is kept as the file has it: the end at lambda = 0 is best at {experts[0]}, so it is taken for"
    return experts, () if experts == in_file else (f"{told} that reward's expert.",)


def _experts(points: list[PlainPoint], models: list[Model], objectives: Mapping[str, str]) -> dict[str, str]:
    """Return the adapter of each reward: it has the name of the reward, or where weights are given, of its column."""
    adapters = {name for model in models for name in model.weights}
    in_file = {name for point in points for name in point.weights}
    named = {name: expression if expression in in_file else name for name, expression in objectives.items()}
    return {name: adapter for name, adapter in named.items() if adapter in adapters}


def _model(point: PlainPoint, objectives: Mapping[str, str], experts: tuple[str, ...]) -> Model:
    if point.kind == "morl" and not point.mu and set(point.weights) <= {*objectives, *objectives.values()}:
        point = replace(point, mu=point.weights or None, weights={})  # what it was trained on, not mixed from
    mu = _mu(point, objectives)
    weights = _weights(point, tuple(objectives), experts)
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


def _mu(point: PlainPoint, objectives: Mapping[str, str]) -> dict[str, float] | None:
    """Return the weights of a MORL training by reward, which sum to 1; the input may name rewards or their labels."""
    if point.mu is None:
        return None
    given = {name: weight for name, weight in point.mu.items() if weight}
    labels = {name: _alone(expression, point.values) for name, expression in objectives.items()}
    by_label = set(given) <= set(labels.values())
    mu = {name: given.pop(label if by_label else name, 0.0) for name, label in labels.items()}
    if given:
        name = next(iter(given))
        raise ResultsError(f"{point.where}: mu of {name!r}, which is no reward.", did_you_mean(name, list(objectives)))
    total = sum(mu.values())
    if not total:
        raise ResultsError(f"{point.where}: every mu is 0.", "Give the weights that the model was trained with.")
    return {name: weight / total for name, weight in mu.items()}


def _refuse_twins(path: str, models: list[Model]) -> None:
    """Refuse two points of one id, and two measurements of one expert, of which mixes are judged."""
    ids = Counter(model.id for model in models)
    twice = [name for name, count in ids.items() if count > 1]
    if twice:
        raise ResultsError(
            f"{path}: {ids[twice[0]]} points are {', '.join(twice[:5])}{', ...' if len(twice) > 5 else ''}.",
            "Give each a name of its own, in a CSV by a column id, or a column seed for repeats of a training.",
        )
    alone: dict[str, str] = {}
    for model in models:
        adapter = model.alone()
        if adapter in alone:
            raise ResultsError(
                f"{path}: {alone[adapter]} and {model.id} both are the expert {adapter} by itself.",
                "Keep one of them; repeats of a training are told apart by a column seed.",
            )
        if adapter is not None:
            alone[adapter] = model.id


def _refuse_unlike(path: str, first: Mapping[str, Model], models: list[Model], table: Mapping[str, int]) -> None:
    """Refuse a seed whose points are not those of the first seed."""
    if set(table) != set(first):
        odd = sorted(set(table) ^ set(first))[0]
        raise ResultsError(
            f"{path}: the point {odd!r} is not there for every seed.", "Measure the same points for every seed."
        )
    for model in models:
        if model != first[model.id]:
            raise ResultsError(
                f"{path}: the point {model.id!r} is not the same in every seed.",
                "Give it the same kind, weights, lambda and mu for every seed.",
            )


def is_number(cell: str) -> bool:
    """Say whether a cell holds a finite number, and not one beyond all scores."""
    try:
        return abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def require_path(path: Path) -> str:
    """Return the text of an input file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise ResultsError(f"{path}: cannot be read ({reason_of(problem)}).", "Check the path.") from problem
    except UnicodeDecodeError as problem:
        raise ResultsError(f"{path}: is not UTF-8 text.", "Give results.json, a CSV or a printed block.") from problem
