"""Make the scorers of a recipe and check what they return."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rsoup.errors import FailedSampleError, RewardError, first_line
from rsoup.recipe import RewardSection
from rsoup.rewards import complete_reward, registry_entry, search_working_folder


class Scorer(Protocol):
    """Scores completions: f(prompts, completions) -> one number each. The prompts are the posts, without template."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Sequence[float] | np.ndarray: ...


def make_scorer(name: str, section: RewardSection) -> Scorer:
    """Load what a reward needs; ``name`` is the registry entry if the section names no other source."""
    section = complete_reward(name, section)
    if section.function is not None:
        return load_function(section.function)
    if section.model is not None:
        from rsoup.rewards.classifier import Classifier

        return Classifier(name, section)
    module, _, attribute = registry_entry(section.use or name).scorer.partition(":")
    scorer: Scorer = getattr(importlib.import_module(module), attribute)(section)
    return scorer


def load_function(where: str) -> Scorer:
    """Import ``module:function`` or ``path/to/file.py:function``."""
    source, _, attribute = where.rpartition(":")
    hint = "Write module:function or path/to/file.py:function."
    if not source:
        raise RewardError(f"{where}: is not a function.", hint)
    try:
        with redirect_stdout(sys.stderr):
            module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    except FileNotFoundError as problem:
        raise RewardError(f"{where}: there is no file {source}.", "Check the path.") from problem
    except ModuleNotFoundError as problem:
        raise RewardError(f"{where}: cannot be imported ({problem}).", hint) from problem
    except (Exception, SystemExit) as problem:
        raise RewardError(
            f"{where}: importing it raised {type(problem).__name__}: {first_line(problem)}.", f"Mend {source}."
        ) from problem
    function = getattr(module, attribute, None)
    if not callable(function):
        raise RewardError(f"{where}: {source} has no function {attribute}.", hint)
    scorer: Scorer = function
    return scorer


def _import_module(name: str) -> Any:
    search_working_folder()
    return importlib.import_module(name)


def _import_file(path: Path) -> Any:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    if str(path.parent) not in sys.path:  # a file may import its neighbours
        sys.path.append(str(path.parent))
    name = f"rsoup_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def score(name: str, scorer: Scorer, prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
    """Score completions and check the result: one finite number each, float64 (n,)."""
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            values = scorer(list(prompts), list(completions))
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
    if array.shape != (len(completions),):
        raise RewardError(
            f"The reward {name} returned an array of shape {array.shape} for {len(completions)} completions.",
            "Return one number per completion.",
        )
    for index in np.flatnonzero(~np.isfinite(array)).tolist():
        raise RewardError(
            f"The reward {name} returned {array[index]} for the completion {completions[index]!r} "
            f"of the prompt {_shorten(prompts[index])!r}.",
            "Return a finite number for every completion, the empty one included.",
        )
    return array


def score_each(
    name: str, scorer: Scorer, prompts: Sequence[str], completions: Sequence[str]
) -> tuple[np.ndarray, RewardError | None]:
    """Return the scores (n,), NaN where the reward fails, and the first failure, if there is one.

    Where a batch fails it is halved until what fails stands alone: a FailedSampleError. If no half of a batch fails,
    the failure is the batch's own.
    """
    try:
        return score(name, scorer, prompts, completions), None
    except RewardError as problem:
        if len(completions) == 1:
            return np.full(1, np.nan), _naming(problem, name, prompts[0], completions[0])
        half = len(completions) // 2
        first, error = score_each(name, scorer, prompts[:half], completions[:half])
        second, other = score_each(name, scorer, prompts[half:], completions[half:])
        return np.concatenate([first, second]), error or other or problem


def _naming(problem: RewardError, name: str, prompt: str, completion: str) -> FailedSampleError:
    message = problem.message
    if repr(completion) not in message:
        message = f"{message.rstrip('.')}, for the completion {completion!r} of the prompt {_shorten(prompt)!r}."
    return FailedSampleError(message, problem.hint, reward=name, prompt=prompt, completion=completion)


def score_all(
    scorers: Mapping[str, Scorer], prompts: Sequence[str], completions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Score completions with every reward; the error of one that fails names the completion."""
    scores: dict[str, np.ndarray] = {}
    for name, scorer in scorers.items():
        scores[name], problem = score_each(name, scorer, prompts, completions)
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
