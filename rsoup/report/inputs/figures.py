"""Which figures of an evaluation a report is on: rewards, and measures of the completions beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rsoup.errors import ResultsError
from rsoup.evaluation.results import Point, PointSamples, Results, Samples
from rsoup.pareto.dominance import Floats
from rsoup.report.inputs.plain import lowered, terms_of, unknown_label

Terms = tuple[tuple[float, str], ...]
"""Signed labels, whose sum is an objective."""


@dataclass(frozen=True)
class Figures:
    """The objectives of a report on results: their terms, which are rewards or measures, and which way they go.

    ``trained`` has the objective that is each reward, in the direction that trainings took it.
    """

    terms: Mapping[str, Terms]
    minimized: frozenset[str]
    trained: Mapping[str, str]
    notes: tuple[str, ...] = ()

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
            for label in self.labels.difference(run.rewards, point.extras):
                measured = label in ("kl", "surprise", "base_perplexity")
                again = "Evaluate again with evaluation.measures on, or leave" if measured else "Leave"
                raise ResultsError(f"{path}: the point {point.id!r} has no {label}.", f"{again} the objective out.")

    def means(self, first: Results, run: Results) -> Floats:
        """Return (points, objectives) in the order of the first run."""
        return np.array([[_sum(terms, _means(run.point(p.id))) for terms in self.terms.values()] for p in first.points])

    def count(self, runs: Sequence[Results], point: str, name: str) -> int:
        """Return how many prompts, of all runs, stand behind the mean of a point."""
        found = [(run.point(point).scores, run.prompts.count) for run in runs]
        labels = [label for _, label in self.terms[name]]
        return sum(min(scores[label].n if label in scores else count for label in labels) for scores, count in found)

    def stderr(self, run: Results) -> Floats | None:
        """Return (points, objectives), NaN where an error is not told; a difference has none."""
        rows = [[_told_error(point, terms) for terms in self.terms.values()] for point in run.points]
        return np.array(rows, dtype=float) if np.isfinite(np.array(rows, dtype=float)).any() else None

    def samples(self, first: Results, texts: list[Samples], means: Floats) -> tuple[Floats, tuple[str, ...]]:
        """Return (seeds, prompts, points, objectives) in the order of the first run, and which of them are known.

        The others have their means (seeds, points, objectives) on every prompt.
        """
        known = tuple(
            name
            for name, terms in self.terms.items()
            if all(label in _singles(own) for text in texts for own in text.points.values() for _, label in terms)
        )
        found = np.empty((len(texts), len(texts[0].prompt_ids), len(first.points), len(self.terms)))
        found[:] = means[:, None]
        for seed, text in enumerate(texts):
            place = {prompt_id: row for row, prompt_id in enumerate(text.prompt_ids)}
            order = [place[prompt_id] for prompt_id in texts[0].prompt_ids]
            for row, point in enumerate(first.points):
                singles = _singles(text.points[point.id])
                for column, (name, terms) in enumerate(self.terms.items()):
                    if name in known:
                        found[seed, :, row, column] = _sum(terms, singles)[order]
        return found, known

    def texts(self, samples: Samples) -> Samples:
        """Return the samples with the objectives for their scores, as far as completions have them."""
        return replace(samples, points={name: self._scored(own) for name, own in samples.points.items()})

    def _scored(self, own: PointSamples) -> PointSamples:
        singles = _singles(own)
        known = {name: terms for name, terms in self.terms.items() if all(label in singles for _, label in terms)}
        return replace(own, scores={name: _sum(terms, singles) for name, terms in known.items()})


def choose_figures(path: Path, run: Results, objectives: Mapping[str, str], minimize: Collection[str]) -> Figures:
    """Return the figures that objectives name: of rewards these alone, of measures all rewards and these."""
    measures = list(dict.fromkeys(label for point in run.points for label in point.extras if label not in run.rewards))
    known = [*run.rewards, *measures]
    terms = {name: terms_of(expression, known) for name, expression in objectives.items()}
    for name, own in terms.items():
        if not own:
            raise unknown_label(str(path), objectives[name], known)
    if not any(label in run.rewards for own in terms.values() for _, label in own):
        taken = next((name for name in terms if name in run.rewards), None)
        if taken is not None:
            raise ResultsError(f"--objective: {taken!r} is a reward of {path} already.", "Give another name.")
        terms = {name: ((1.0, name),) for name in run.rewards} | terms
        objectives = {name: name for name in run.rewards} | dict(objectives)
    minimized = lowered(objectives, known, run.directions, minimize)
    rising = [name for name, own in terms.items() if own[0][1] in measures and name not in minimized]
    notes = tuple(f"Higher counts as better for {name}; if lower is better, add --minimize {name}." for name in rising)
    trained = {}
    for name, own in terms.items():
        sign, label = own[0]
        turned = (name in minimized) != (label in run.minimized)
        if len(own) == 1 and label in run.rewards and turned == (sign < 0):
            trained[label] = name
    return Figures(terms, minimized, trained, notes)


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
        name: np.asarray(score.mean) for name, score in point.scores.items()
    }


def _told_error(point: Point, terms: Terms) -> float | None:
    score = point.scores.get(terms[0][1])
    return score.stderr if score is not None and len(terms) == 1 else None


def _singles(own: PointSamples) -> dict[str, Floats]:
    """Return what is known of each prompt's completions: scores and those measures that are means over them."""
    lengths = {"completion_tokens": own.tokens, "ended_by_eos": own.ended_by_eos}
    return {name: np.asarray(values, dtype=float) for name, values in {**lengths, **own.measures, **own.scores}.items()}
