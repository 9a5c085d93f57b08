"""Conditions under which ``rsoup pareto --fail-if`` fails, and how they turned out."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsoup.errors import ResultsError, did_you_mean
from rsoup.pareto.direction import turned_interval
from rsoup.report.evidence import Evidence
from rsoup.report.measured import Model
from rsoup.report.schema import Check, Choice, Comparison, Estimate, Lmc, Volume

SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FORM = re.compile(r"\s*(?P<name>[^<>=]+?)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>[^<>=\s]+)\s*")
EXAMPLE = 'Write for example --fail-if "faithful<0.5".'


@dataclass(frozen=True)
class Condition:
    """What must not be: ``name`` is a figure, or a score or measure with ``@`` and the point to read it at."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.limit:.10g}"

    def fails(self, value: float) -> bool:
        """Say whether a value meets the condition."""
        return SIGNS[self.sign](value, self.limit)

    def is_clear(self, found: Estimate) -> bool | None:
        """Say whether the interval lies on the value's side of the limit as a whole; None without an interval."""
        if found.interval is None:
            return None
        return all(self.fails(end) == self.fails(found.value) for end in found.interval)


@dataclass(frozen=True)
class Figures:
    """What belongs to the front as a whole."""

    volumes: Mapping[str, Volume]
    lmc: Mapping[str, Lmc]
    comparison: Comparison | None

    def find(self, name: str, minimized: frozenset[str]) -> Estimate | None:
        """Return the figure of that name, None if there is none."""
        what, _, part = name.partition(":")
        if what == "hypervolume":
            volume = self.volumes.get(part or ("soup" if "soup" in self.volumes else "all"))
            return None if volume is None else Estimate(value=volume.value, interval=volume.interval)
        if name == "hypervolume_ratio":
            return None if self.comparison is None else self.comparison.hypervolume_ratio
        if what != "gap":
            return None
        gaps = [
            Estimate(
                value=sign * own.minimum.gap,
                interval=None if own.minimum.interval is None else turned_interval(own.minimum.interval, sign),
            )
            for reward, own in self.lmc.items()
            for sign in [-1.0 if reward in minimized else 1.0]
            if own.minimum is not None and part in ("", reward)
        ]
        return min(gaps, key=lambda gap: gap.value, default=None)

    def names(self) -> list[str]:
        """Return what can be asked for."""
        volumes = ["hypervolume", *(f"hypervolume:{kind}" for kind in self.volumes)]
        gaps = ["gap", *(f"gap:{reward}" for reward in self.lmc)] if self.lmc else []
        return [*volumes, *gaps, *(["hypervolume_ratio"] if self.comparison else [])]


def conditions(texts: Iterable[str]) -> tuple[Condition, ...]:
    """Return the conditions that the texts given to ``--fail-if`` stand for."""
    return tuple(map(_condition, texts))


def check(evidence: Evidence, choices: Sequence[Choice], figures: Figures, asked: Sequence[Condition]) -> list[Check]:
    """Return how the conditions turned out.

    Scores and measures are read at every chosen model; without one, a single mix must escape all of them together.
    """
    found: list[Check] = []
    of_mix: list[Condition] = []
    for condition in asked:
        figure = figures.find(condition.name, evidence.measured.minimized)
        name, row = (condition.name, None) if figure else _read_at(evidence, figures, condition)
        if figure is not None:
            found.append(_told(condition, figure, None, "it is"))
        elif row is not None:
            found.append(_told(condition, _value(evidence, row, name), evidence.measured.models[row].id, "{point} has"))
        else:
            of_mix.append(condition)
    return found + (_of_choices(evidence, choices, of_mix) if choices else _of_any(evidence, of_mix))


def _of_choices(evidence: Evidence, choices: Sequence[Choice], asked: Sequence[Condition]) -> list[Check]:
    rows = {model.id: row for row, model in enumerate(evidence.measured.models)}
    return [
        _told(condition, _value(evidence, rows[point], condition.name), point, "{point}, chosen, has")
        for point in dict.fromkeys(choice.nearest for choice in choices)
        for condition in asked
    ]


def _of_any(evidence: Evidence, asked: Sequence[Condition]) -> list[Check]:
    """Judge the mix that escapes all conditions by most, or misses one by least, in parts of the ranges."""
    if not asked:
        return []
    measured = evidence.measured
    rows = measured.rows("soup", "expert") or measured.rows("model") or list(range(len(measured.models)))
    values = np.array([[_value(evidence, row, own.name).value for own in asked] for row in rows])
    span = np.ptp(values, axis=0)
    ways = np.array([1.0 if own.sign[0] == "<" else -1.0 for own in asked])
    margins = ways * (values - [own.limit for own in asked]) / np.where(span > 0, span, 1.0)
    escaping = np.array(
        [[not own.fails(float(value)) for own, value in zip(asked, line, strict=True)] for line in values]
    )
    whole = escaping.all(axis=1)
    worst = margins.min(axis=1)
    place = int(np.argmax(np.where(whole, worst, -np.inf) if whole.any() else worst))
    together = " together with the others" if len(asked) > 1 else ""
    words = "{point} keeps it with" if whole.any() else f"no mix keeps it{together}; the nearest, {{point}}, has"
    row = rows[place]
    told = []
    for condition in asked:
        found = _value(evidence, row, condition.name)
        said = words if condition.fails(found.value) or whole.any() else "the nearest mix, {point}, has"
        told.append(_told(condition, found, measured.models[row].id, said))
    return told


def _told(condition: Condition, found: Estimate, point: str | None, words: str) -> Check:
    failed, clear = condition.fails(found.value), condition.is_clear(found)
    ends = "" if found.interval is None else f" [{', '.join(f'{end:.4g}' for end in found.interval)}]"
    sure = {True: ", clear of the limit", False: "; the interval reaches over the limit", None: ", without interval"}
    return Check(
        condition=str(condition),
        failed=failed,
        point=point,
        value=found.value,
        interval=found.interval,
        clear=clear,
        words=f"{words.format(point=point)} {found.value:.4g}{ends}{sure[clear]}",
    )


def _read_at(evidence: Evidence, figures: Figures, condition: Condition) -> tuple[str, int | None]:
    """Return the score or measure that a condition speaks of, and the row of the point it names, if it does."""
    measured = evidence.measured
    known = [*measured.rewards, *measured.measures()]
    if condition.name in known:
        return condition.name, None
    name, at, place = condition.name.rpartition("@")
    name = name.strip() if at else condition.name
    if name not in known:
        hint = did_you_mean(name, [*known, *figures.names()])
        raise ResultsError(f"--fail-if {condition}: {name!r} is no reward, measure or figure of these points.", hint)
    row = next((row for row, model in enumerate(measured.models) if _is_at(place.strip(), model.id, model.lam)), None)
    if row is None:
        raise ResultsError(
            f"--fail-if {condition}: no point was measured at {place.strip()!r}.",
            _places(place.strip(), measured.models),
        )
    return name, row


def _places(asked: str, models: Sequence[Model]) -> str:
    """Return a hint to the points there are: their lambdas to who asked by a number, else their names."""
    lambdas = sorted({model.lam for model in models if model.lam is not None})
    try:
        float(asked)
    except ValueError:
        return did_you_mean(asked, [model.id for model in models])
    if not lambdas:
        return f"Points have no lambda here, but names. {did_you_mean(asked, [model.id for model in models])}"
    return f"Lambdas: {', '.join(f'{lam:.4g}' for lam in lambdas)}."


def _is_at(place: str, point: str, lam: float | None) -> bool:
    try:
        return point == place or (lam is not None and abs(float(place) - lam) < 1e-9)
    except ValueError:
        return False


def _value(evidence: Evidence, row: int, name: str) -> Estimate:
    model = evidence.measured.models[row]
    if name in evidence.measured.rewards:
        score = evidence.scores[row][name]
        return Estimate(value=score.mean, stderr=score.stderr, interval=score.interval)
    if name not in model.measures:
        raise ResultsError(
            f"--fail-if: the point {model.id!r} has no {name}.", "Evaluate it, or leave the condition out."
        )
    return Estimate(value=model.measures[name])


def _condition(text: str) -> Condition:
    match = FORM.fullmatch(text)
    if match is None:
        raise ResultsError(f"--fail-if {text}: is no condition.", EXAMPLE)
    try:
        limit = float(match["limit"])
    except ValueError as problem:
        raise ResultsError(f"--fail-if {text}: {match['limit']!r} is not a number.", EXAMPLE) from problem
    if not math.isfinite(limit):
        raise ResultsError(f"--fail-if {text}: {match['limit']!r} is no limit.", EXAMPLE)
    return Condition(match["name"], match["sign"], limit)
