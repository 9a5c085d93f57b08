"""What scores become before they are maximised: scaled, clipped, weighted, less a penalty."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from rsoup.errors import RewardError
from rsoup.recipe import TrainingSection
from rsoup.rewards.scoring import weighted_score

EPSILON = 1e-8
PATIENCE = 5
"""Steps after which a reward that has applied to no completion ends a training."""


@dataclass(frozen=True)
class Running:
    """Mean and spread of all scores a reward gave so far; ``spread`` is their sum of squared deviations."""

    count: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation, with n - 1 in the denominator; 0 for fewer than two scores."""
        return math.sqrt(self.spread / (self.count - 1)) if self.count > 1 else 0.0

    def with_batch(self, scores: np.ndarray) -> Running:
        """Return the statistics with a batch (n,) taken in, NaN left out (Chan et al., 1979)."""
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            return self
        count = self.count + len(scores)
        mean = float(scores.mean())
        apart = mean - self.mean
        spread = float(((scores - mean) ** 2).sum()) + apart**2 * self.count * len(scores) / count
        return Running(count, self.mean + apart * len(scores) / count, self.spread + spread)


def check_applies(running: Mapping[str, Running], weights: Mapping[str, float], step: int, steps: int) -> None:
    """Raise RewardError where no reward with a weight has applied to any completion of the first steps, or of all."""
    used = [name for name, weight in weights.items() if weight]
    if step in (PATIENCE, steps) and not any(running[name].count for name in used):
        rewards, count = " and ".join(used), "1 step" if step == 1 else f"{step} steps"
        raise RewardError(
            f"{rewards} gave None for every completion of {count}: nothing can be learnt.",
            "Give the rows what the reward reads (a reference answer: task.reference), or another reward.",
        )


def objective_scores(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    running: Mapping[str, Running],
    training: TrainingSection,
    minimized: Collection[str] = (),
) -> np.ndarray:
    """Return what a training maximises: the weighted mean of scores, scaled and clipped. (P * G,) each -> (P * G,).

    Scores of ``minimized`` rewards count with the opposite sign.
    A score that is NaN, where a reward does not apply, takes no part in anything; the result is NaN where none does.
    ``running`` holds the statistics of each reward with the present batch taken in.
    """
    prepared = {
        name: sign_of(name, minimized)
        * _clipped(_scaled(scores[name], running.get(name, Running()), training), training.score_clip)
        for name in weights
    }
    return weighted_score(prepared, weights)


def sign_of(reward: str, minimized: Collection[str]) -> float:
    """Return what turns a reward's scores, or scores scaled and clipped, into something to be maximised."""
    return -1.0 if reward in minimized else 1.0


def _scaled(scores: np.ndarray, running: Running, training: TrainingSection) -> np.ndarray:
    if training.score_scaling == "running":
        return np.asarray((scores - running.mean) / (running.deviation + EPSILON))
    if training.score_scaling == "normalize_then_sum":  # GDPO (arXiv 2601.05242), within the completions of a prompt
        return _normalised(scores.reshape(-1, training.completions_per_prompt)).reshape(-1)
    return scores


def _normalised(grouped: np.ndarray) -> np.ndarray:
    """Return scores (P, G) less the mean of their row, over its standard deviation; NaN stays and does not count."""
    there = ~np.isnan(grouped)
    counts = there.sum(1, keepdims=True)
    centred = grouped - np.where(there, grouped, 0.0).sum(1, keepdims=True) / np.maximum(counts, 1)
    squares = np.where(there, centred**2, 0.0).sum(1, keepdims=True)
    return np.asarray(centred / (np.sqrt(squares / np.maximum(counts - 1, 1)) + 1e-4))


def _clipped(scores: np.ndarray, limit: float | None) -> np.ndarray:
    return scores if limit is None else scores.clip(-limit, limit)
