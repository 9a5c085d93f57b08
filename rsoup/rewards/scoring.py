"""Make the scorers of a recipe and check what they return."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Protocol

import numpy as np

from rsoup.errors import FailedSampleError, RewardError, first_line
from rsoup.recipe import RewardSection
from rsoup.rewards import complete_reward, registry_entry
from rsoup.rewards.samples import Sample


class Scorer(Protocol):
    """Scores completions: one number for each sample."""

    def __call__(self, samples: Sequence[Sample]) -> Sequence[float] | np.ndarray: ...


def make_scorer(name: str, section: RewardSection) -> Scorer:
    """Load what a reward needs; ``name`` is the registry entry if the section names no other source."""
    section = complete_reward(name, section)
    if section.function is not None:
        from rsoup.rewards.functions import load_function

        return load_function(section.function)
    if section.model is not None:
        from rsoup.rewards.classifier import Classifier

        return Classifier(name, section)
    module, _, attribute = registry_entry(section.use or name).scorer.partition(":")
    scorer: Scorer = getattr(importlib.import_module(module), attribute)(section)
    return scorer


def score(name: str, scorer: Scorer, samples: Sequence[Sample]) -> np.ndarray:
    """Score completions and check the result: one finite number each, float64 (n,)."""
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            values = scorer(list(samples))
    except RewardError:
        raise
    except (Exception, SystemExit) as problem:
        raise RewardError(
            f"The reward {name} raised {type(problem).__name__}: {first_line(problem)}.",
            "Mend it; rsoup rewards tries a reward on a text.",
        ) from problem
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise RewardError(
            f"The reward {name} returned something that is not numbers.", "Return a list of floats."
        ) from problem
    if array.shape != (len(samples),):
        raise RewardError(
            f"The reward {name} returned an array of shape {array.shape} for {len(samples)} completions.",
            "Return one number per completion.",
        )
    for index in np.flatnonzero(~np.isfinite(array)).tolist():
        raise RewardError(
            f"The reward {name} returned {array[index]} for the completion {samples[index].completion!r} "
            f"of the prompt {_shorten(samples[index].post)!r}.",
            "Return a finite number for every completion, the empty one included.",
        )
    return array


def score_each(name: str, scorer: Scorer, samples: Sequence[Sample]) -> tuple[np.ndarray, RewardError | None]:
    """Return the scores (n,), NaN where the reward fails, and the first failure, if there is one.

    Where a batch fails it is halved until what fails stands alone: a FailedSampleError. If no half of a batch fails,
    the failure is the batch's own.
    """
    try:
        return score(name, scorer, samples), None
    except RewardError as problem:
        if len(samples) == 1:
            return np.full(1, np.nan), _naming(problem, name, samples[0])
        half = len(samples) // 2
        first, error = score_each(name, scorer, samples[:half])
        second, other = score_each(name, scorer, samples[half:])
        return np.concatenate([first, second]), error or other or problem


def _naming(problem: RewardError, name: str, sample: Sample) -> FailedSampleError:
    message, completion = problem.message, sample.completion
    if repr(completion) not in message:
        message = f"{message.rstrip('.')}, for the completion {completion!r} of the prompt {_shorten(sample.post)!r}."
    return FailedSampleError(message, problem.hint, reward=name, prompt=sample.post, completion=completion)


def score_all(scorers: Mapping[str, Scorer], samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Score completions with every reward; the error of one that fails names the completion."""
    scores: dict[str, np.ndarray] = {}
    for name, scorer in scorers.items():
        scores[name], problem = score_each(name, scorer, samples)
        if problem is not None:
            raise problem
    return scores


def weighted_score(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted sum of scores divided by the sum of the weights, as the paper's code does."""
    total = math.fsum(weights.values())
    weighted = np.stack([weight * scores[name] for name, weight in weights.items()])
    result: np.ndarray = weighted.sum(0) / total
    return result


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def make_scorers(sections: Mapping[str, RewardSection]) -> dict[str, Scorer]:
    """Load every reward of a recipe."""
    return {name: make_scorer(name, section) for name, section in sections.items()}
