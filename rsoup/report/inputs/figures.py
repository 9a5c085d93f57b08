"""Which figures of an evaluation a report is on: rewards, and measures of the completions beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rsoup.errors import ResultsError
from rsoup.evaluation.results import Point, PointSamples, Results, Samples
from rsoup.pareto.dominance import Floats
from rsoup.report.inputs.plain import higher_counts, lowered, terms_of, unknown_label

Terms = tuple[tuple[float, str], ...]
"""Signed labels, whose sum is an objective."""
MOST_DOCUMENTS = 2000
"""Documents of a benchmark beyond which they are drawn in blocks."""


@dataclass(frozen=True)
class Figures:
    """The objectives of a report on results: their terms, which are rewards or measures, and which way they go.

    ``trained`` has the objective that is each reward, in the direction that trainings took it. ``benchmarks`` are those
    of the metrics that objectives speak of, by label.
    """

    terms: Mapping[str, Terms]
    minimized: frozenset[str]
    trained: Mapping[str, str]
    notes: tuple[str, ...] = ()
    benchmarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives in order."""
        return tuple(self.terms)

    @property
    def labels(self) -> frozenset[str]:
        """The rewards and measures that objectives speak of."""
        return frozenset(label for terms in self.terms.values() for _, label in terms)

    def check(self, path: Path, run: Results) -> None:
        """Refuse results that lack a measure asked for."""
        for point in run.points:
            for label in self.labels.difference(run.rewards, point.extras, point.benchmarks):
                measured = label in ("kl", "surprise", "base_perplexity")
                again = "Evaluate again with evaluation.measures on, or leave" if measured else "Leave"
                raise ResultsError(f"{path}: the point {point.id!r} has no {label}.", f"{again} the objective out.")

    def means(self, first: Results, run: Results) -> Floats:
        """Return (points, objectives) in the order of the first run."""
        return np.array([[_sum(terms, _means(run.point(p.id))) for terms in self.terms.values()] for p in first.points])

    def count(self, runs: Sequence[Results], point: str, name: str) -> int:
        """Return how many prompts or documents, of all runs, stand behind the mean of a point."""
        labels = [label for _, label in self.terms[name]]
        found = [(run.point(point), run.prompts.count) for run in runs]
        return sum(
            min(scores[label].n if label in scores else count for label in labels)
            for scores, count in ((own.scores | own.benchmarks, count) for own, count in found)
        )

    def stderr(self, run: Results) -> Floats | None:
        """Return (points, objectives), NaN where an error is not told; a difference has none."""
        rows = [[_told_error(point, terms) for terms in self.terms.values()] for point in run.points]
        return np.array(rows, dtype=float) if np.isfinite(np.array(rows, dtype=float)).any() else None

    def unit(self, name: str) -> str | None:
        """Return the benchmark whose documents an objective is over, "" for prompts, None if it is over several."""
        found = {self.benchmarks.get(label, "") for _, label in self.terms[name]}
        return found.pop() if len(found) == 1 else None

    def samples(self, first: Results, texts: list[Samples], means: Floats) -> tuple[Floats, tuple[str, ...]]:
        """Return (seeds, rows, points, objectives) in the order of the first run, and which of them are known.

        Rows are prompts, and after them the documents of each benchmark, NaN for objectives over others. Those that are
        not known have their means (seeds, points, objectives) on every row.
        """
        sources = [_Singles(text, self.benchmarks) for text in texts]
        known = tuple(name for name in self.names if all(own.has(name, self) for own in sources))
        units = dict.fromkeys(["", *(self.unit(name) or "" for name in known)])
        blocks = []
        for unit in units:
            own = np.empty((len(texts), sources[0].count(unit), len(first.points), len(self.terms)))
            own[:] = means[:, None]
            for column, (name, terms) in enumerate(self.terms.items()):
                for seed, source in enumerate(sources) if name in known else ():
                    order = source.order(unit, sources[0])
                    for row, point in enumerate(first.points):
                        values = source.values(unit, point.id, terms) if self.unit(name) == unit else None
                        own[seed, :, row, column] = np.nan if values is None else values[order]
            blocks.append(in_blocks(own, MOST_DOCUMENTS) if unit else own)
        return np.concatenate(blocks, axis=1), known

    def texts(self, samples: Samples) -> Samples:
        """Return the samples with the objectives for their scores, as far as completions have them."""
        return replace(samples, points={name: self._scored(own) for name, own in samples.points.items()})

    def _scored(self, own: PointSamples) -> PointSamples:
        singles = _singles(own)
        known = {name: terms for name, terms in self.terms.items() if all(label in singles for _, label in terms)}
        return replace(own, scores={name: _sum(terms, singles) for name, terms in known.items()})


class _Singles:
    """The single values of a run's samples: of prompts, and of the documents of each benchmark."""

    def __init__(self, samples: Samples, benchmarks: Mapping[str, str]) -> None:
        self._samples, self._benchmarks = samples, benchmarks
        self._prompts = {point: _singles(own) for point, own in samples.points.items()}

    def _of(self, unit: str, point: str) -> Mapping[str, Floats]:
        return self._samples.benchmarks[unit].parts[point] if unit else self._prompts[point]

    def ids(self, unit: str) -> tuple[str, ...]:
        """Return what prompts or documents are called."""
        return self._samples.benchmarks[unit].ids if unit else self._samples.prompt_ids

    def count(self, unit: str) -> int:
        """Return how many there are."""
        return len(self.ids(unit))

    def order(self, unit: str, other: _Singles) -> list[int]:
        """Return the places of another run's prompts or documents in this one."""
        place = {name: row for row, name in enumerate(self.ids(unit))}
        return [place[name] for name in other.ids(unit)]

    def has(self, name: str, figures: Figures) -> bool:
        """Tell whether an objective is known of each prompt, or of each document."""
        unit = figures.unit(name)
        if unit is None or (unit and unit not in self._samples.benchmarks):
            return False
        return all(label in self._of(unit, point) for point in self._samples.points for _, label in figures.terms[name])

    def values(self, unit: str, point: str, terms: Terms) -> Floats:
        """Return an objective of each prompt or document."""
        return _sum(terms, self._of(unit, point))


def in_blocks(values: Floats, most: int) -> Floats:
    """Return (seeds, rows, points, objectives) with rows put together in ``most`` blocks if there are more of them.

    A block has what its rows add to the mean, which stays what it is. Thousands of documents are drawn as well in
    blocks, and with less memory; where some are missing they stay apart.
    """
    count = values.shape[1]
    if count <= most or np.isnan(values).any(axis=(0, 1, 2)).sum() != np.isnan(values).all(axis=(0, 1, 2)).sum():
        return values
    middle = values.mean(axis=1, keepdims=True)
    found = np.zeros((values.shape[0], most, *values.shape[2:]))
    for row in range(count):
        found[:, row % most] += (values[:, row] - middle[:, 0]) * (most / count)
    return np.asarray(found + middle)


def choose_figures(path: Path, run: Results, objectives: Mapping[str, str], minimize: Collection[str]) -> Figures:
    """Return the figures that objectives name: of rewards these alone, of measures all rewards and these.

    Benchmarks stand beside the rewards, each by its main metric unless an objective names one of its metrics.
    """
    measures = list(dict.fromkeys(label for point in run.points for label in point.extras if label not in run.rewards))
    labels = run.labels
    known = [*run.rewards, *labels, *measures]
    asked = {name: terms_of(expression, known) for name, expression in objectives.items()}
    for name, own in asked.items():
        if not own:
            raise unknown_label(str(path), objectives[name], known)
    terms = {name: tuple((sign, labels.get(label, label)) for sign, label in own) for name, own in asked.items()}
    objectives = {name: labels.get(expression, expression) for name, expression in objectives.items()}
    if not any(label in run.rewards for own in terms.values() for _, label in own):
        taken = next((name for name in terms if name in run.rewards), None)
        if taken is not None:
            raise ResultsError(f"--objective: {taken!r} is a reward of {path} already.", "Give another name.")
        spoken = {label for own in terms.values() for _, label in own}
        beside = {name: own.main for name, own in run.benchmarks.items() if not spoken & own.directions.keys()}
        standing = {name: name for name in run.rewards} | beside
        twice = next((name for name in terms if name in beside), None)
        if twice is not None:
            raise ResultsError(f"--objective: {twice!r} is a benchmark of {path} already.", "Give another name.")
        terms = {name: ((1.0, label),) for name, label in standing.items()} | terms
        objectives = standing | objectives
    ways = {label: way for own in run.benchmarks.values() for label, way in own.directions.items() if way is not None}
    minimized = lowered(objectives, known, {**ways, **run.directions}, minimize)
    rising = [name for name, own in terms.items() if own[0][1] in measures and name not in minimized]
    notes = tuple(map(higher_counts, rising))
    trained = {}
    for name, own in terms.items():
        sign, label = own[0]
        turned = (name in minimized) != (label in run.minimized)
        if len(own) == 1 and label in run.rewards and turned == (sign < 0):
            trained[label] = name
    spoken = {label for own in terms.values() for _, label in own}
    benchmarks = {label: name for name, own in run.benchmarks.items() for label in own.directions if label in spoken}
    return Figures(terms, minimized, trained, notes, benchmarks)


def with_measures(run: Results, samples: Samples) -> Results:
    """Return results whose points have the means of all measures that their completions have."""
    points = tuple(
        point.model_copy(
            update={
                "extras": {name: float(values.mean()) for name, values in samples.points[point.id].measures.items()}
                | point.extras
            }
        )
        for point in run.points
    )
    return run.model_copy(update={"points": points})


def _sum(terms: Terms, values: Mapping[str, Floats]) -> Floats:
    return np.asarray(sum(sign * values[label] for sign, label in terms) + 0.0)


def _means(point: Point) -> dict[str, Floats]:
    return {name: np.asarray(value) for name, value in point.extras.items()} | {
        name: np.asarray(score.mean) for name, score in (point.scores | point.benchmarks).items()
    }


def _told_error(point: Point, terms: Terms) -> float | None:
    score = (point.scores | point.benchmarks).get(terms[0][1])
    return score.stderr if score is not None and len(terms) == 1 else None


def _singles(own: PointSamples) -> dict[str, Floats]:
    """Return what is known of each prompt's completions: scores and those measures that are means over them."""
    lengths = {"completion_tokens": own.tokens, "ended_by_eos": own.ended_by_eos}
    return {name: np.asarray(values, dtype=float) for name, values in {**lengths, **own.measures, **own.scores}.items()}
