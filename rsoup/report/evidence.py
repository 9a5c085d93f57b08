"""Measured scores together with what resampling says about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsoup.pareto.bootstrap import (
    LEVEL,
    calibrated,
    degrees_of_each,
    degrees_of_freedom,
    draw_levels,
    draw_means,
    excess,
    interval,
    standard_error,
)
from rsoup.pareto.direction import turned_interval
from rsoup.pareto.dominance import Bools, Floats
from rsoup.report.measured import Measured
from rsoup.report.schema import Bootstrap, Estimate, ScoreEstimate

TOGETHER = 256  # scores whose part in a figure is asked for at once
LEVEL_DRAWS = 500
"""Draws that tell how far a statistic varies with seeds and prompts by themselves."""


@dataclass(frozen=True)
class Evidence:
    """Gains, and where single scores are known, bootstrap draws of them that are paired across models.

    Figures are of gains; ``told`` turns those of one reward into what was measured.
    """

    measured: Measured
    draws: Floats | None  # (draws, models, rewards)
    settings: Bootstrap | None
    levels: tuple[Floats, Floats, Floats] | None = None  # draws of seeds, of prompts and of both, if there are seeds

    @cached_property
    def scores(self) -> list[dict[str, ScoreEstimate]]:
        """Return the scores of every model by reward, as they were measured."""
        scores = self.linear(lambda values: values)
        counts = self.measured.counts
        return [
            {
                name: ScoreEstimate(
                    mean=(own := self.told(name, scores.at(row, column))).value,
                    stderr=own.stderr,
                    n=None if counts is None else counts[row][column],
                    interval=own.interval,
                )
                for column, name in enumerate(self.measured.rewards)
            }
            for row in range(len(self.measured.models))
        ]

    def told(self, reward: str, gain: Estimate) -> Estimate:
        """Turn a figure linear in the gains of one reward into one of its scores; drop errors that are unknown."""
        sign = -1.0 if reward in self.measured.minimized else 1.0
        value = sign * gain.value + 0.0
        if reward in self.measured.bare:
            return Estimate(value=value)
        interval = None if gain.interval is None else turned_interval(gain.interval, sign)
        stderr, widened = gain.stderr, self.measured.widened
        if stderr is not None and widened is not None:
            stderr /= float(widened[self.measured.rewards.index(reward)])
        return Estimate(value=value, stderr=stderr, interval=interval)

    def estimate(
        self, statistic: Callable[[Floats], Floats], *, within: tuple[float, float] = (-np.inf, np.inf)
    ) -> Estimate:
        """Return a statistic with its interval, which ends where its values do.

        It takes scores (draws, models, rewards) and returns (draws,).
        """
        value = float(statistic(self.measured.scores[None])[0])
        if self.draws is None:
            return Estimate(value=value)
        assert self.measured.samples is not None
        drawn, shape = statistic(self.draws), self.measured.samples.shape[:2]
        freedom = float(max(shape) - 1)
        if self.levels is not None:
            of_seeds, of_prompts, of_both = (statistic(draws) for draws in self.levels)
            drawn, freedom = calibrated(drawn, value, (of_seeds, of_prompts, of_both), shape, self._freedom)
        low, high = np.clip(interval(drawn, np.array(value), freedom), *within)
        return Estimate(value=value, stderr=float(drawn.std(ddof=1)), interval=(float(low), float(high)))

    def linear(self, function: Callable[[Floats], Floats]) -> Linear:
        """Return figures that are linear in the scores; ``function`` takes (..., models, rewards).

        They have single values of their own, which tell how far each varies and with how many degrees of freedom: a
        difference of models may vary less over seeds than either of them. Standard errors that came without single
        scores are taken for those of independent means.
        """
        measured = self.measured
        value = function(measured.scores)
        if self.draws is None or measured.samples is None:
            return Linear(value, self._told_error(function), None, None, None)
        own = function(measured.samples)
        narrower = np.median(excess(measured.samples)) / excess(own)
        drawn = value + (function(self.draws) - value) * narrower
        return Linear(value, standard_error(own), interval(drawn, value, degrees_of_each(own)), drawn, own)

    def probability(self, mark: Callable[[Floats], Bools]) -> Floats | None:
        """Return the share of draws in which ``mark`` of the scores is true."""
        if self.draws is None:
            return None
        return np.asarray(np.mean([mark(scores) for scores in self.draws], axis=0))

    def _told_error(self, function: Callable[[Floats], Floats]) -> Floats | None:
        """Return the standard errors of linear figures from those of the scores: None, or NaN, if these are unknown."""
        told = self.measured.stderr
        if told is None:
            return None
        nothing = function(np.zeros_like(told))
        variance: Floats = np.zeros(nothing.shape)
        for first in range(0, told.size, TOGETHER):
            places = np.arange(first, min(first + TOGETHER, told.size))
            each = np.zeros((len(places), told.size))
            each[np.arange(len(places)), places] = 1.0
            parts = function(each.reshape(-1, *told.shape)) - nothing
            own = told.ravel()[places].reshape(-1, *[1] * nothing.ndim) ** 2
            variance += np.sum(np.where(parts != 0, parts**2 * own, 0.0), axis=0)
        return np.sqrt(variance)

    @cached_property
    def _freedom(self) -> float:
        """The degrees of freedom of the scores."""
        assert self.measured.samples is not None
        return degrees_of_freedom(self.measured.samples)


@dataclass(frozen=True)
class Linear:
    """Figures of any shape with their standard errors, intervals (2, ...), draws (draws, ...) and single values.

    The single values are (seeds, prompts, ...); what is not known is None.
    """

    value: Floats
    stderr: Floats | None
    interval: Floats | None
    draws: Floats | None
    samples: Floats | None

    def at(self, *place: int) -> Estimate:
        """Return one of the figures."""
        value = float(self.value[place])
        if self.stderr is None or np.isnan(self.stderr[place]):
            return Estimate(value=value)
        if self.interval is None:
            return Estimate(value=value, stderr=float(self.stderr[place]))
        low, high = (side[place] for side in self.interval)
        return Estimate(value=value, stderr=float(self.stderr[place]), interval=(float(low), float(high)))


def gather(measured: Measured, draws: int, seed: int) -> Evidence:
    """Draw the bootstrap once for everything a report says."""
    if measured.samples is None or measured.samples.shape[0] * measured.samples.shape[1] < 2:
        return Evidence(measured, None, None)
    seeds, rows = measured.samples.shape[:2]
    prompts = rows if measured.prompts is None else measured.prompts
    settings = Bootstrap(draws=draws, seed=seed, level=LEVEL, prompts=prompts, seeds=seeds)
    drawn = draw_means(measured.samples, draws, seed)
    levels = draw_levels(measured.samples, draws, seed, LEVEL_DRAWS) if seeds > 1 else None
    return Evidence(measured, drawn, settings, levels)
