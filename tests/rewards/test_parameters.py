"""What a function asks for is told by the names of its parameters, whatever wraps it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import RewardError
from rsoup.rewards.functions import Function
from rsoup.rewards.parameters import read_parameters
from rsoup.rewards.samples import plain_samples


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(completions: Any) -> Any:
        return function(completions, completions)

    return wrapper


def lengths(completions: Any, prompts: Any) -> list[float]:
    return [10.0 * len(c) + len(p) for c, p in zip(completions, prompts, strict=True)]


class Scaled:
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [self.factor * (10 * len(c) + len(p)) for c, p in zip(completions, prompts, strict=True)]

    def method(self, completions: Any, *, prompts: Any) -> list[float]:
        return lengths(completions, prompts)

    @passing_on
    def wrapped(self, completions: Any, prompts: Any) -> list[float]:
        return lengths(completions, prompts)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lengths, 42.0),
        (lambda prompts, completions: lengths(completions, prompts), 42.0),
        (lambda *, prompts, completions, **_: lengths(completions, prompts), 42.0),
        (lambda **columns: lengths(columns["completions"], columns["prompts"]), 42.0),
        (passing_on(lengths), 42.0),
        (passing_on(passing_on(lengths)), 42.0),
        (in_order(lengths), 42.0),
        (in_order(lambda completions, scale=2.0, prompts=None: [scale if prompts is None else 0.0]), 2.0),
        (of_its_own(lengths), 44.0),
        (functools.partial(lambda scale, prompts, completions: [scale], 3.0), 3.0),
        (functools.partial(passing_on(lambda prompts, completions, scale: [scale]), scale=4.0), 4.0),
        (Scaled(), 84.0),
        (Scaled().method, 42.0),
        (Scaled().wrapped, 42.0),
        (lambda completions, weight=0.5: [weight], 0.5),
        (functools.lru_cache(lambda completion, prompt: 10.0 * len(completion) + len(prompt)), 42.0),
        (lambda response: float(len(response)), 4.0),
    ],
)
def test_a_function_gets_what_it_names(function: Callable[..., Any], expected: float) -> None:
    """The post is two letters long and the completion four: 10 * 4 + 2."""
    assert list(Function(function)(plain_samples(["ab"], ["four"]))) == [expected]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, b: [1.0], "reads no completion: it takes a, b"),
        (lambda queries, prompts, labels: [1.0], "reads queries, which for OpenRLHF are prompt and answer as one text"),
        (lambda queries, prompts, labels, **rest: [1.0], "reads queries, which for OpenRLHF"),
        (Path.with_name, "is a method, which needs an object of its class"),
        (lambda: [1.0], "reads no completion: it takes nothing"),
        (eval("lambda prompts, completions, /: [1.0]"), "its parameter 'prompts' takes a value by position only"),
        (eval("lambda *texts: [1.0]"), r"takes \*texts alone, and values are given by name"),
        (max, "its parameters cannot be read|reads no completion"),
    ],
)
def test_a_function_that_cannot_be_called_by_name_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        read_parameters(function, "own.py:reward")
    assert caught.value.message.startswith("own.py:reward: ")


def test_what_is_needed_is_told_from_what_has_a_default() -> None:
    found = read_parameters(lambda completions, solution, scale=1.0, *, level, **rest: [], "own")
    assert found.needs == ("completions", "solution", "level")
    assert found.optional == ("scale",)
    assert found.rest
    assert found.missing({"solution"}) == ["level"]
    assert found.missing({"solution", "level", "other"}) == []


def test_verls_function_and_those_of_a_single_completion_are_called_for_each() -> None:
    assert read_parameters(lambda data_source, solution_str, ground_truth: 0.0, "own").answer == "solution_str"
    assert read_parameters(lambda prompt, completion: 0.0, "own").answer == "completion"
    assert read_parameters(lambda completions, response: 0.0, "own").answer is None  # a column called response
    assert read_parameters(lambda completions, answer: 0.0, "own").answer is None


def texts(completions: list[str]) -> None: ...
def messages(completions: list[list[dict[str, str]]], **_: Any) -> None: ...
def either(completions: list[str] | list[list[dict[str, str]]]) -> None: ...
def prompts_alone(prompts: list[str], completions: Any) -> None: ...
def one_text(completion: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "shape"),
    [(texts, "texts"), (messages, "messages"), (either, None), (prompts_alone, "texts"), (one_text, "texts")],
)
def test_annotations_say_what_completions_are(function: Callable[..., Any], shape: str | None) -> None:
    assert read_parameters(function, "own").shape == shape
