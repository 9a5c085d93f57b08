"""Trainings abreast: each goes on by itself until it asks for a pass, and passes that are alike become one."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from rsoup.errors import RsoupError
from rsoup.progress import Progress, Silent
from rsoup.training.passes import Learning, Request, Sampling, Thinking

Answer = Callable[[Sequence[Request[Any]]], Sequence[Any]]
Training = Coroutine[Any, Any, None]


class Stopwatch:
    """Tells the seconds of one training: its own, and an equal part of each pass that it shares."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        """Return the seconds so far."""
        return self._spent + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def add(self, seconds: float) -> None:
        """Count a part of a pass."""
        self._spent += seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block takes."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._since = self(), None


class Stream:
    """The numbers that torch's global generators draw for one training, whatever others draw in between."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._state = self._now()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Draw from it within the block."""
        outside = self._now()
        self._set(self._state)
        try:
            yield
        finally:
            self._state = self._now()
            self._set(outside)

    def _now(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return torch.get_rng_state(), None if self._device is None else torch.cuda.get_rng_state(self._device)

    def _set(self, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._device)


class Lane:
    """One training among others, begun with a clock: the pass that it asks for, or None at its end."""

    def __init__(self, name: str, begin: Callable[[Stopwatch], Training], device: torch.device) -> None:
        self.name, self.watch, self.stream = name, Stopwatch(), Stream(device)
        self.asked: Request[Any] | None = None
        self._training = begin(self.watch)

    def go_on(self, answer: Any = None) -> None:
        """Compute up to the next pass."""
        self.asked = None
        with self.stream.flowing(), self.watch.running():
            try:
                self.asked = self._training.send(answer)
            except StopIteration:
                pass  # the end
            except RsoupError as problem:
                problem.message = f"{self.name}: {problem.message}"
                raise

    def close(self) -> None:
        """End the training; one under way keeps its last whole step."""
        self._training.close()


def run_abreast(lanes: Sequence[Lane], answer: Answer, most_prompts: int | None) -> None:
    """Run trainings to their ends; whatever ends one early ends all, and each keeps its last whole step.

    ``most_prompts`` is how many prompts' completions pass at once while gradients are taken.
    """
    with ExitStack() as ends:
        for lane in lanes:
            ends.callback(lane.close)
        for lane in lanes:
            lane.go_on()
        while asking := [lane for lane in lanes if lane.asked is not None]:
            group = next_pass(asking, most_prompts)
            began = time.perf_counter()
            answers = answer([lane.asked for lane in group if lane.asked is not None])
            for lane in group:
                lane.watch.add((time.perf_counter() - began) / len(group))
            for lane, own in zip(group, answers, strict=True):
                lane.go_on(own)


def next_pass(asking: Sequence[Lane], most_prompts: int | None) -> list[Lane]:
    """Return the lanes whose passes become the next one: of those furthest on in their step, as many as may pass.

    So those that are ahead wait where a step begins, and the graph of a pass is used before the next is made.
    """
    furthest = max(_place(lane.asked) for lane in asking)
    alike = [lane for lane in asking if _place(lane.asked) == furthest]
    if most_prompts is None or furthest[0] != _LEARNING_PASS:
        return alike
    group: list[Lane] = []
    prompts = 0
    for lane in alike:
        assert isinstance(lane.asked, Thinking)
        prompts += len(lane.asked.ids)
        if group and prompts > most_prompts:
            break
        group.append(lane)
    return group


_LEARNING_PASS = 3


def _place(asked: Request[Any] | None) -> tuple[int, bool]:
    """Return how far on in a step a request is, and what else two have in common that may share a pass."""
    match asked:
        case Sampling():
            return 0, False
        case Thinking(way="start"):
            return 1, False
        case Thinking(way="still"):
            return 2, asked.with_entropy
        case Thinking():
            return _LEARNING_PASS, asked.with_entropy
        case Learning():
            return 4, False
    raise TypeError(asked)


class LaneProgress(Silent):
    """Shows one training beside others: a bar of its own, and its name before what it says."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self._total, self._done = 0, 0

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Show the bar."""
        self._total, self._done = total, done
        self._progress.show(stage, total, done)

    def advance(self, note: str = "") -> None:
        """Move the bar on."""
        self._done += 1
        self._progress.show(self._name, self._total, self._done, note)

    def say(self, text: str) -> None:
        """Say it with the training's name."""
        self._progress.say(f"{self._name}: {text}")
