"""Make the scorers of a recipe and check what they return."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rsoup.errors import FailedSampleError, RewardError, RewardUnavailableError, first_line
from rsoup.recipe import RewardSection
from rsoup.rewards import complete_reward, registry_entry
from rsoup.rewards.functions import NO_TRAINING, Function, TrainerState, load_function
from rsoup.rewards.judges import make_judge
from rsoup.rewards.logs import Log
from rsoup.rewards.numbers import read_scores
from rsoup.rewards.samples import Sample


class Scorer(Protocol):
    """Scores completions: one number for each sample, or None where the reward does not apply to it."""

    def __call__(self, samples: Sequence[Sample]) -> Sequence[float | None] | np.ndarray: ...


def make_scorer(name: str, section: RewardSection) -> Scorer:
    """Load what a reward needs; ``name`` is the registry entry if the section names no other source."""
    section = complete_reward(name, section)
    if section.function is not None:
        return load_function(section.function, section.columns)
    if section.judge is not None:
        return make_judge(name, section)
    if section.model is not None:
        from rsoup.rewards.classifier import Classifier

        return Classifier(name, section)
    module, _, attribute = registry_entry(section.use or name).scorer.partition(":")
    scorer: Scorer = getattr(importlib.import_module(module), attribute)(section)
    return scorer


def score(name: str, scorer: Scorer, samples: Sequence[Sample]) -> np.ndarray:
    """Score completions: float64 (n,), NaN where the reward does not apply (it gave None), else a finite number."""
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            values = read_scores(name, scorer(list(samples)), len(samples))
    except RewardError:
        raise
    except (Exception, SystemExit) as problem:
        raise RewardError(
            f"The reward {name} raised {type(problem).__name__}: {first_line(problem)}.",
            _hint(scorer, samples),
        ) from problem
    for sample, value in zip(samples, values, strict=True):
        if value is not None and not math.isfinite(value):
            raise RewardError(
                f"The reward {name} returned {value} for the completion {sample.completion!r} "
                f"of the prompt {_shorten(sample.post)!r}.",
                "Return a finite number for every completion, the empty one included, or None where it does not apply.",
            )
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _hint(scorer: Scorer, samples: Sequence[Sample]) -> str:
    hint = "Mend it; rsoup rewards tries a reward on a text."
    return f"{scorer.told(samples)} {hint}" if isinstance(scorer, Function) else hint


@dataclass(frozen=True)
class Scored:
    """The scores of some completions (n,), NaN where the reward does not apply or failed, and the first failure."""

    scores: np.ndarray
    failed: np.ndarray
    problem: RewardError | None = None

    def __add__(self, other: Scored) -> Scored:
        """Return both, one after the other."""
        scores, failed = (np.concatenate(pair) for pair in ((self.scores, other.scores), (self.failed, other.failed)))
        return Scored(scores, failed, self.problem or other.problem)


def score_each(name: str, scorer: Scorer, samples: Sequence[Sample]) -> Scored:
    """Return the scores, and which samples the reward fails on.

    Where a batch fails it is halved until what fails stands alone: a FailedSampleError. If no sample fails
    alone, the failure is the batch's own. Where a reward cannot be asked at all, every sample fails.
    """
    try:
        values = score(name, scorer, samples)
        return Scored(values, np.zeros(len(samples), dtype=bool))
    except RewardUnavailableError as problem:
        return Scored(np.full(len(samples), np.nan), np.ones(len(samples), dtype=bool), problem)
    except RewardError as problem:
        if len(samples) == 1:
            return Scored(np.full(1, np.nan), np.ones(1, dtype=bool), _naming(problem, name, samples[0]))
        half = len(samples) // 2
        both = score_each(name, scorer, samples[:half]) + score_each(name, scorer, samples[half:])
        return both if both.failed.any() else Scored(both.scores, both.failed, problem)


def _naming(problem: RewardError, name: str, sample: Sample) -> FailedSampleError:
    message, completion = problem.message, sample.completion
    if repr(completion) not in message:
        message = f"{message.rstrip('.')}, for the completion {completion!r} of the prompt {_shorten(sample.post)!r}."
    return FailedSampleError(message, problem.hint, reward=name, prompt=sample.post, completion=completion)


def score_all(
    scorers: Mapping[str, Scorer],
    samples: Sequence[Sample],
    state: TrainerState = NO_TRAINING,
    log: Log | None = None,
) -> dict[str, np.ndarray]:
    """Score completions with every reward: (n,) each, NaN where it does not apply; async functions work together.

    The error of a reward that fails names the completion. Functions may ask for the ``state`` of a training, and what
    they tell beside scores goes to the ``log`` under the name of the reward.
    """
    log = log or Log()
    with redirect_stdout(sys.stderr):
        ready = {name: _ready(scorer, samples, state, log.under(name)) for name, scorer in scorers.items()}
        scores: dict[str, np.ndarray] = {}
        for name, scorer in ready.items():
            found = score_each(name, scorer, samples)
            if found.problem is not None:
                raise found.problem
            scores[name] = found.scores
    return scores


def _ready(scorer: Scorer, samples: Sequence[Sample], state: TrainerState, log: Log) -> Scorer:
    if isinstance(scorer, Function):
        begun: Scorer = scorer.at(state, log).begin(samples)
        return begun
    return logging_to(log, scorer, state)


def logging_to(log: Log, scorer: Scorer, state: TrainerState = NO_TRAINING) -> Scorer:
    """Return a scorer that notes in the log what it tells beside scores, if it tells anything."""
    at = getattr(scorer, "at", None)
    found: Scorer = scorer if at is None else at(state, log)
    return found


def applies_to_any(name: str, scorer: Scorer, samples: Iterable[Sample]) -> bool:
    """Tell whether a reward applies to one of some samples; those after the first such one are not scored."""
    return any(mean_of(score(name, scorer, [sample])) is not None for sample in samples)


def weighted_score(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted mean of the scores that apply to each completion, NaN where none with a weight does.

    The weighted sum is divided by the sum of the weights, as the paper's code does: by those of what applies (TRL
    leaves the others' weights in, so that a reward that does not apply counts as a score of 0).
    """
    values = np.stack([scores[name] for name in weights])  # (rewards, n)
    shares = np.array(list(weights.values()))[:, None] * ~np.isnan(values)
    total = shares.sum(0)
    weighted = np.where(shares > 0, shares * values, 0.0).sum(0)
    means: np.ndarray = np.divide(weighted, total, out=np.full(len(total), np.nan), where=total > 0)
    return means


def mean_of(values: np.ndarray) -> float | None:
    """Return the mean of the scores that apply, None if there is none."""
    applying = values[~np.isnan(values)]
    return float(applying.mean()) if len(applying) else None


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def make_scorers(sections: Mapping[str, RewardSection]) -> dict[str, Scorer]:
    """Load every reward of a recipe."""
    return {name: make_scorer(name, section) for name, section in sections.items()}
