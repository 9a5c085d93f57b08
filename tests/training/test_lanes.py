"""Which passes of trainings that go abreast become one, and what ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rsoup.errors import RsoupError
from rsoup.training.lanes import Lane, Stopwatch, Stream, run_abreast
from rsoup.training.passes import Learning, Sampling, Thinking

NONE: Any = None
CPU = torch.device("cpu")


def sampling() -> Sampling:
    return Sampling(NONE, NONE, NONE, NONE, NONE, NONE)


def thinking(way: Any, prompts: int = 2) -> Thinking:
    return Thinking(NONE, NONE, NONE, torch.zeros(prompts, 1, 1), 1.0, way)


def lane(name: str, steps: int, passes: int = 2) -> Lane:
    async def training(_watch: Stopwatch) -> None:
        for _ in range(steps):
            await sampling()
            await thinking("start")
            for _ in range(passes):
                await thinking("learning")
                await Learning(NONE, NONE)

    return Lane(name, training, CPU)


def kinds_of(lanes: Sequence[Lane], most_prompts: int | None) -> list[tuple[str, int]]:
    """Return the kind of each pass in order, and how many trainings shared it."""
    seen: list[tuple[str, int]] = []

    def answer(requests: Sequence[Any]) -> list[None]:
        assert len({type(request) for request in requests}) == 1
        seen.append((getattr(requests[0], "way", type(requests[0]).__name__), len(requests)))
        return [None] * len(requests)

    run_abreast(lanes, answer, most_prompts)
    return seen


def test_trainings_share_every_pass_and_one_with_more_steps_goes_on_alone() -> None:
    step = ["Sampling", "start", "learning", "Learning"]
    seen = kinds_of([lane("a", 2, passes=1), lane("b", 1, passes=1)], None)
    assert seen == [*((kind, 2) for kind in step), *((kind, 1) for kind in step)]


def test_no_more_prompts_pass_than_told_and_each_graph_is_used_before_the_next_is_made() -> None:
    seen = kinds_of([lane("a", 1), lane("b", 1), lane("c", 1)], 4)
    learning = [(kind, count) for kind, count in seen if kind in ("learning", "Learning")]
    assert max(count for _, count in learning) == 2
    assert [kind for kind, _ in learning] == ["learning", "Learning"] * (len(learning) // 2)
    assert sum(count for kind, count in learning if kind == "learning") == 6
    assert seen[:2] == [("Sampling", 3), ("start", 3)]


def test_a_training_ahead_waits_for_the_others_where_a_step_begins() -> None:
    seen = kinds_of([lane("a", 3), lane("b", 3)], 2)
    assert [count for kind, count in seen if kind == "Sampling"] == [2, 2, 2]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), RsoupError("It broke.", "Mend it.")])
def test_what_ends_one_ends_all_and_each_may_save_what_it_has(problem: BaseException) -> None:
    saved = []

    def training(name: str, ends: bool) -> Callable[[Stopwatch], Any]:
        async def rounds(_watch: Stopwatch) -> None:
            try:
                await sampling()
                if ends:
                    raise problem
                await sampling()
            except BaseException:
                saved.append(name)
                raise

        return rounds

    lanes = [Lane(name, training(name, name == "b"), CPU) for name in "abc"]
    with pytest.raises(type(problem)) as caught:
        run_abreast(lanes, lambda requests: [None] * len(requests), None)
    assert sorted(saved) == ["a", "b", "c"]
    if isinstance(caught.value, RsoupError):
        assert caught.value.message == "b: It broke."


def test_a_pass_that_fails_ends_all_too() -> None:
    def answer(_requests: Sequence[Any]) -> list[None]:
        raise KeyboardInterrupt

    saved = []

    async def training(_watch: Stopwatch) -> None:
        try:
            await sampling()
        finally:
            saved.append(1)

    with pytest.raises(KeyboardInterrupt):
        run_abreast([Lane(name, training, CPU) for name in "ab"], answer, None)
    assert len(saved) == 2


def test_each_training_draws_its_own_numbers_whoever_draws_in_between() -> None:
    streams = [Stream(CPU), Stream(CPU)]
    for seed, stream in enumerate(streams):
        with stream.flowing():
            torch.manual_seed(seed)
    drawn: list[list[float]] = [[], []]
    for _ in range(3):
        for own, stream in zip(drawn, streams, strict=True):
            with stream.flowing():
                own.append(float(torch.rand(1)))
    for seed, own in enumerate(drawn):
        torch.manual_seed(seed)
        assert own == [float(torch.rand(1)) for _ in range(3)]


def test_seconds_of_a_shared_pass_are_parted() -> None:
    watches: list[Stopwatch] = []

    async def training(watch: Stopwatch) -> None:
        watches.append(watch)
        await sampling()

    def answer(requests: Sequence[Any]) -> list[None]:
        time.sleep(0.02)
        return [None] * len(requests)

    began = time.perf_counter()
    run_abreast([Lane(name, training, CPU) for name in "ab"], answer, None)
    wall = time.perf_counter() - began
    assert all(watch() >= 0.01 for watch in watches)
    assert sum(watch() for watch in watches) <= wall
