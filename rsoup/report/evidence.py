"""Measured scores together with what resampling says about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsoup.pareto.bootstrap import LEVEL, degrees_of_freedom, draw_means, interval, standard_error
from rsoup.pareto.dominance import Bools, Floats
from rsoup.report.measured import Measured
from rsoup.report.schema import Bootstrap, Estimate, ScoreEstimate


@dataclass(frozen=True)
class Evidence:
    """Scores, and where single scores are known, bootstrap draws of them that are paired across models."""

    measured: Measured
    draws: Floats | None  # (draws, models, rewards)
    freedom: float  # degrees of freedom of the intervals
    settings: Bootstrap | None

    @cached_property
    def scores(self) -> list[dict[str, ScoreEstimate]]:
        """Return the scores of every model by reward."""
        scores = self.linear(lambda values: values)
        return [
            {
                name: self._score(scores.at(row, column), row, column)
                for column, name in enumerate(self.measured.rewards)
            }
            for row in range(len(self.measured.models))
        ]

    def estimate(
        self, statistic: Callable[[Floats], float], *, within: tuple[float, float] = (-np.inf, np.inf)
    ) -> Estimate:
        """Return a statistic of the scores (models, rewards) with its interval, which ends where its values do."""
        value = statistic(self.measured.scores)
        if self.draws is None:
            return Estimate(value=value)
        drawn = np.array([statistic(scores) for scores in self.draws])
        low, high = np.clip(interval(drawn, np.array(value), self.freedom), *within)
        return Estimate(value=value, stderr=float(drawn.std(ddof=1)), interval=(float(low), float(high)))

    def linear(self, function: Callable[[Floats], Floats]) -> Linear:
        """Return figures that are linear in the scores; ``function`` takes (..., models, rewards)."""
        measured = self.measured
        value = function(measured.scores)
        if self.draws is None or measured.samples is None:
            return Linear(value, None, None, None)
        drawn = function(self.draws)
        stderr = standard_error(function(measured.samples))
        return Linear(value, stderr, interval(drawn, value, self.freedom), drawn)

    def probability(self, mark: Callable[[Floats], Bools]) -> Floats | None:
        """Return the share of draws in which ``mark`` of the scores is true."""
        if self.draws is None:
            return None
        return np.asarray(np.mean([mark(scores) for scores in self.draws], axis=0))

    def _score(self, estimate: Estimate, row: int, column: int) -> ScoreEstimate:
        told, counts = self.measured.stderr, self.measured.counts
        stderr = float(told[row, column]) if estimate.stderr is None and told is not None else estimate.stderr
        return ScoreEstimate(
            mean=estimate.value, stderr=stderr, n=None if counts is None else counts[row], interval=estimate.interval
        )


@dataclass(frozen=True)
class Linear:
    """Figures of any shape with their standard errors, intervals (2, ...) and draws (draws, ...), None if unknown."""

    value: Floats
    stderr: Floats | None
    interval: Floats | None
    draws: Floats | None

    def at(self, *place: int) -> Estimate:
        """Return one of the figures."""
        value = float(self.value[place])
        if self.stderr is None or self.interval is None:
            return Estimate(value=value)
        low, high = (side[place] for side in self.interval)
        return Estimate(value=value, stderr=float(self.stderr[place]), interval=(float(low), float(high)))


def gather(measured: Measured, draws: int, seed: int) -> Evidence:
    """Draw the bootstrap once for everything a report says."""
    if measured.samples is None or measured.samples.shape[0] * measured.samples.shape[1] < 2:
        return Evidence(measured, None, 0.0, None)
    seeds, prompts = measured.samples.shape[:2]
    settings = Bootstrap(draws=draws, seed=seed, level=LEVEL, prompts=prompts, seeds=seeds)
    drawn = draw_means(measured.samples, draws, seed)
    return Evidence(measured, drawn, degrees_of_freedom(measured.samples), settings)
