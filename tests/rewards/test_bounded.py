"""Whatever a model writes, its verdict is there within bounded time: in any thread, and one that was ended is told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rsoup.recipe import RewardSection
from rsoup.rewards import bounded
from rsoup.rewards.bounded import Bounded, LateError
from rsoup.rewards.functions import NO_TRAINING
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer, score_all
from rsoup.tasks.gym import gym_rows

HOSTILE = r"$9^{9^{9^{9}}}$"
REFERENCE = "4"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1.0)


def in_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(30)
    assert found
    return found[0]


@pytest.mark.parametrize("where", [lambda call: call(), in_thread], ids=["main thread", "another thread"])
def test_an_answer_that_never_ends_is_wrong_and_told(where: Callable[..., Any]) -> None:
    samples = [Sample("?", text, reference=REFERENCE) for text in ("4", HOSTILE, "5", "it is 4")]
    log = Log()
    scorers = {"math": make_scorer("math", RewardSection())}
    score_all(scorers, samples[:1])  # the process is there
    began = time.monotonic()
    scores = where(lambda: score_all(scorers, samples, NO_TRAINING, log))
    assert time.monotonic() - began < 20
    assert scores["math"].tolist() == [1, 0, 0, 1]
    assert log.means() == {"math/out_of_time": 0.25}


def test_a_scorer_of_a_task_is_bounded_too() -> None:
    row = next(gym_rows('gym:countdown {"size": 1}'))
    log = Log()
    samples = [Sample("?", text, columns=row) for text in (row["metadata"]["expression"], "9**9**9**9")]
    assert score_all({"gym": make_scorer("gym", RewardSection())}, samples, NO_TRAINING, log)["gym"].tolist() == [1, 0]
    assert log.means() == {"gym/out_of_time": 0.5}


def test_what_looks_at_no_signal_ends_with_its_process_and_the_next_call_has_another() -> None:
    call = Bounded("rewards.calls:sleep_deeply")
    assert call(0) == "slept"
    began = time.monotonic()
    with pytest.raises(LateError):
        call(10**11)
    assert time.monotonic() - began < 20
    assert call(0) == "slept"


def test_values_and_problems_come_back_and_what_is_printed_does_not() -> None:
    call, failing = Bounded("rewards.calls:echo"), Bounded("rewards.calls:fail")
    for value in ({"a": [1, None, "é\n\u2028"]}, 0.1, None):
        assert call(value) == value
    with pytest.raises(RuntimeError, match=r"^ValueError: the reason$"):
        failing("the reason")
    assert call("again") == "again"


def test_its_process_ends_with_who_began_it() -> None:
    call = Bounded("rewards.calls:own_number")
    number = call()
    os.kill(number, 0)
    del call
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
