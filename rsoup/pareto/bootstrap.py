"""Uncertainty by resampling prompts, and training seeds where there are several, the same way at every point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from rsoup.pareto.dominance import Floats

LEVEL = 0.95
MOST_BIAS = 0.5  # standard deviations that percentiles can correct: more leaves them draws of the tails alone
BIAS_BEHIND = 1 + math.sqrt(2)
"""The bias of an estimate over what its draws add: noise moves it by b, and draws, of twice the variance, by 1.41 b."""
SIMULATED = 400_000
FEW = 12  # rows below which counts of a resample take so few values that its tails are missing


def draw_means(samples: Floats, draws: int, seed: int) -> Floats:
    """Return (draws, points, rewards): means over resampled seeds and prompts of (seeds, prompts, points, rewards).

    One resample serves every point, so differences between points stay paired. Seeds and prompts are crossed: each
    draw resamples both, and a prompt drawn is drawn for every seed. That counts their interaction three times (Owen
    2007), so the spread is scaled back, by what it is too wide in the median (``excess``).
    """
    means = _weighted(samples, *_weights(samples, draws, seed))
    centre: Floats = samples.mean(axis=(0, 1))
    return centre + (means - centre) / float(np.median(excess(samples)))


def draw_levels(samples: Floats, draws: int, seed: int, count: int) -> tuple[Floats, Floats, Floats]:
    """Return the first ``count`` of the same draws, with seeds alone resampled, prompts alone, and both, not scaled."""
    of_seeds, of_prompts = (weights[:count] for weights in _weights(samples, draws, seed))
    all_seeds, all_prompts = (np.full_like(weights, 1 / weights.shape[1]) for weights in (of_seeds, of_prompts))
    pairs = (of_seeds, all_prompts), (all_seeds, of_prompts), (of_seeds, of_prompts)
    seeds, prompts, both = (_weighted(samples, *pair) for pair in pairs)
    return seeds, prompts, both


def _weights(samples: Floats, draws: int, seed: int) -> tuple[Floats, Floats]:
    """Return the weights of the seeds and of the prompts in each draw."""
    generator = np.random.default_rng(seed)
    seeds, prompts = samples.shape[:2]
    return resampling_weights(seeds, draws, generator), resampling_weights(prompts, draws, generator)


def _weighted(samples: Floats, of_seeds: Floats, of_prompts: Floats) -> Floats:
    seeds, prompts, points, rewards = samples.shape
    means = np.zeros((len(of_seeds), points * rewards))
    for number in range(seeds):
        means += of_seeds[:, number, None] * (of_prompts @ samples[number].reshape(prompts, points * rewards))
    return means.reshape(-1, points, rewards)


def excess(samples: Floats) -> Floats:
    """Return how much wider resampling both levels spreads each mean of (seeds, prompts, ...) than its standard error.

    Between 1 (a single level, or nothing that varies) and the square root of 3.
    """
    parts = _Variances.of(samples)
    resampled, total = parts.of_seeds + parts.of_prompts + parts.of_both, parts.total()
    return np.sqrt(np.divide(resampled, total, out=np.ones_like(total), where=total > 0))


def resampling_weights(count: int, draws: int, generator: np.random.Generator) -> Floats:
    """Return (draws, count) weights of rows that sum to 1, spread so that the variance of a mean is unbiased.

    Multinomial counts shrink it by (count - 1) / count; the deviations are scaled back (Rao & Wu 1988). Few rows get
    centred normal deviates in place of counts, with the same variances.
    """
    if count == 1:
        return np.ones((draws, 1))
    deviates: Floats
    if count < FEW:
        deviates = generator.normal(size=(draws, count))
        deviates -= deviates.mean(axis=1, keepdims=True)
    else:
        deviates = generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64) - 1.0
    return np.asarray(1 / count + deviates / count * math.sqrt(count / (count - 1)))


def interval(draws: Floats, estimate: Floats, freedom: float | Floats, level: float = LEVEL) -> Floats:
    """Return (2, ...): the bias-corrected percentile interval of ``estimate`` (...) from ``draws`` (draws, ...).

    Its sides are stretched as Student's quantile with ``freedom`` degrees of freedom is to the normal one, so that
    few prompts, or few seeds, widen it (Efron 1987; Hesterberg 2015). Where most draws lie to one side, as volumes
    of many noisy points do, noise has moved the estimate as well: the interval then holds the estimate, and reaches
    to where the draws, mirrored at it (Davison & Hinkley 1997), would end.
    """
    below = (draws < estimate).mean(axis=0) + 0.5 * (draws == estimate).mean(axis=0)
    edge = 0.5 / len(draws)
    found = special.ndtri(np.clip(below, edge, 1 - edge))
    bias = np.clip(found, -MOST_BIAS, MOST_BIAS)
    reach = special.ndtri((1 + level) / 2)
    ordered = np.sort(draws, axis=0)
    low, high = (_quantile(ordered, special.ndtr(2 * bias + side * reach)) for side in (-1, 1))
    beyond = found != bias
    if beyond.any():
        shares = (np.full_like(bias, special.ndtr(side * reach)) for side in (-1, 0, 1))
        lowest, middle, highest = (_quantile(ordered, share) for share in shares)
        moved = estimate - _quantile(ordered, special.ndtr(bias))
        centre = estimate + BIAS_BEHIND * (estimate - middle)
        low = np.where(beyond, np.minimum(low + moved, centre - (highest - middle)), low)
        high = np.where(beyond, np.maximum(high + moved, centre + (middle - lowest)), high)
    stretched: Floats = estimate + (np.stack([low, high]) - estimate) * stretch(freedom, level)
    return stretched


def stretch(freedom: float | Floats, level: float = LEVEL) -> Floats:
    """Return Student's quantile with ``freedom`` degrees of freedom over the normal one: 1 where these are many."""
    return np.asarray(special.stdtrit(freedom, (1 + level) / 2) / special.ndtri((1 + level) / 2))


def simultaneous_reach(draws: Floats, estimate: Floats, samples: Floats, level: float = LEVEL) -> float:
    """Return how many standard errors cover all of ``estimate`` (...) at once in ``level`` of draws (draws, ...).

    ``samples`` (seeds, prompts, ...) are the single values whose means the estimates are. The share of draws beyond the
    largest deviation is the one allowed beyond each figure's reach. Few seeds, or prompts, make all figures of a draw
    move together: Bonferroni's share serves instead.
    """
    stderr = standard_error(samples)
    known = stderr > 0
    if not known.any():
        return 0.0
    seeds, prompts = samples.shape[:2]
    tail = (1 - level) / 2 / int(known.sum())
    if (seeds if seeds > 1 else prompts) >= FEW:
        deviations = np.abs(draws - estimate)[:, known] / stderr[known]
        tail = max(tail, float(special.ndtr(-np.quantile(deviations.max(axis=1), level))))
    if min(seeds, prompts) == 1:
        return float(-special.stdtrit(max(seeds, prompts) - 1, tail))
    return _Variances.of(samples[:, :, known]).studentised(seeds, prompts, tail)


def standard_error(samples: Floats) -> Floats:
    """Return the standard error of the means of (seeds, prompts, ...)."""
    return np.sqrt(_Variances.of(samples).total())


def degrees_of_freedom(samples: Floats) -> float:
    """Return the median over points and rewards of the degrees of freedom of a mean's variance (Satterthwaite 1946)."""
    return _Variances.of(samples).freedom(*samples.shape[:2])


def degrees_of_each(samples: Floats) -> Floats:
    """Return the same degrees of freedom for every mean (...), but those of the prompts where no seed differs.

    The base model of a greedy evaluation is one model, whatever the seed of a training was.
    """
    seeds, prompts = samples.shape[:2]
    alike = (samples == samples[:1]).all(axis=(0, 1))
    return np.where(alike, (prompts if prompts > 1 else seeds) - 1, degrees_of_freedom(samples))


def calibrated(
    drawn: Floats, estimate: float, levels: tuple[Floats, Floats, Floats], shape: tuple[int, int], of_scores: float
) -> tuple[Floats, float]:
    """Return draws of a statistic with the spread of its standard error, and its degrees of freedom.

    ``levels`` are the statistic on the draws of ``draw_levels``: their variances tell what seeds, prompts and the
    interaction add to its own, whatever the statistic. ``shape`` is (seeds, prompts). A single statistic tells little
    about its degrees of freedom: they are the harmonic mean of its own and of those ``of_scores`` it is made of.
    """
    of_seeds, of_prompts, of_all = (np.asarray(values.var(ddof=1)) for values in levels)
    parts = _Variances(of_seeds, of_prompts, np.maximum(of_all - of_seeds - of_prompts, 0))
    spread = float(drawn.std(ddof=1))
    scale = math.sqrt(float(parts.total())) / spread if spread else 1.0
    return estimate + (drawn - estimate) * scale, 2 / (1 / parts.freedom(*shape) + 1 / of_scores)


@dataclass(frozen=True)
class _Variances:
    """What seeds, prompts and their interaction add to the variance of a mean; the first two contain the third."""

    of_seeds: Floats
    of_prompts: Floats
    of_both: Floats

    @classmethod
    def of(cls, samples: Floats) -> _Variances:
        """Split the variance of the means of (seeds, prompts, ...); a level of one adds nothing."""
        seeds, prompts = samples.shape[:2]
        by_seed, by_prompt = samples.mean(axis=1), samples.mean(axis=0)
        none = np.zeros(samples.shape[2:])
        of_seeds = np.var(by_seed, axis=0, ddof=1) / seeds if seeds > 1 else none
        of_prompts = np.var(by_prompt, axis=0, ddof=1) / prompts if prompts > 1 else none
        if min(seeds, prompts) == 1:
            return cls(of_seeds, of_prompts, none)
        rest = samples - by_seed[:, None] - by_prompt[None] + samples.mean(axis=(0, 1))
        of_both = np.sum(rest**2, axis=(0, 1)) / ((seeds - 1) * (prompts - 1)) / (seeds * prompts)
        return cls(of_seeds, of_prompts, of_both)

    def freedom(self, seeds: int, prompts: int) -> float:
        """Return the median degrees of freedom (Satterthwaite 1946)."""
        left, right = self._upper(seeds, prompts)
        pooled = left**2 / max(seeds - 1, 1) + right**2 / max(prompts - 1, 1)
        known = pooled > 0
        if not known.any():
            return float(max(seeds, prompts) - 1)
        return float(np.median((left + right)[known] ** 2 / pooled[known]))

    def total(self) -> Floats:
        """Return the variance of the mean, the interaction counted once, a third of what resampling gives at least."""
        least = (self.of_seeds + self.of_prompts + self.of_both) / 3
        total: Floats = np.maximum(self.of_seeds + self.of_prompts - self.of_both, least)
        return total

    def studentised(self, seeds: int, prompts: int, tail: float) -> float:
        """Return what a mean of the truth 0 over its standard error exceeds in a share ``tail`` of trials.

        Simulated with the ratios of the variances, pooled over the means; that of the seeds two standard errors up.
        """
        known = self.of_prompts > 0
        if not known.any():
            return float(-special.stdtrit(seeds - 1, tail))
        of_seeds = float(np.mean(self.of_seeds[known] / self.of_prompts[known]))
        of_both = float(np.mean(self.of_both[known] / self.of_prompts[known]))
        of_seeds *= 1 + math.sqrt(8 / (seeds - 1) / max(int(known.sum()), 1))
        generator = np.random.default_rng(0)
        parts = _Variances(
            of_seeds * generator.chisquare(seeds - 1, SIMULATED) / (seeds - 1),
            generator.chisquare(prompts - 1, SIMULATED) / (prompts - 1),
            np.asarray(of_both),
        )
        spread = float(np.sqrt(_Variances(np.asarray(of_seeds), np.asarray(1.0), np.asarray(of_both)).total()))
        ratios = np.abs(generator.normal(0, spread, SIMULATED)) / np.sqrt(parts.total())
        return float(np.quantile(ratios, 1 - 2 * tail))

    def _upper(self, seeds: int, prompts: int) -> tuple[Floats, Floats]:
        """Return the variances of seeds and prompts, each a standard error above its estimate.

        That of few seeds is more often too small than too large, and would then count for too little.
        """
        of_seeds, of_prompts = (1 + math.sqrt(2 / max(count - 1, 1)) for count in (seeds, prompts))
        return self.of_seeds * of_seeds, self.of_prompts * of_prompts


def _quantile(ordered: Floats, share: Floats) -> Floats:
    """Return one quantile per column of sorted draws (draws, ...), at the shares (...)."""
    place = share * (len(ordered) - 1)
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, len(ordered) - 1)
    first = np.take_along_axis(ordered, low[None], axis=0)[0]
    last = np.take_along_axis(ordered, high[None], axis=0)[0]
    quantiles: Floats = first + (place - low) * (last - first)
    return quantiles
