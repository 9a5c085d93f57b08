"""Stages get workers as they need them, and workers are kept as long as they are of use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from rsoup.errors import RsoupError
from rsoup.stages.dispatch import Dispatcher, Hand, Lost
from rsoup.stages.graph import Needs, Stage

ONE, TWO = Needs(1, 1), Needs(2, 1)


class Idler:
    """A worker that is never asked anything."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs

    def call(self, method: str, *arguments: Any) -> Any:
        raise AssertionError(method)

    def work(self, method: str, *arguments: Any, look: Callable[[], None]) -> Any:
        raise AssertionError(method)

    def put(self, thing: Any) -> Any:
        return thing


class Office:
    """Hires idlers on machines, and notes how many it has at most."""

    def __init__(self, *there: Needs, grows: bool = False) -> None:
        self.grows = grows
        self.there, self.hired, self.most, self._now = there, 0, 0, 0
        self.gone = threading.Event()

    def machines(self) -> tuple[Needs, ...]:
        return self.there

    def check(self) -> None:
        if self.gone.is_set():
            raise RsoupError("gone", "")

    def hire(self, needs: Needs) -> Idler:
        self.hired += 1
        self._now += needs.gpus
        self.most = max(self.most, self._now)
        return Idler(needs)

    def dismiss(self, hand: Hand) -> None:
        self._now -= hand.needs.gpus


def dispatch(stages: list[Stage], office: Office, perform: Callable[[Stage, Hand | None], None]) -> list[str]:
    said: list[str] = []
    Dispatcher(office, perform, said.append).run(stages)
    return said


def test_a_stage_begins_when_what_it_waits_for_is_done() -> None:
    order: list[str] = []
    stages = [
        Stage("a", "start", needs=ONE),
        Stage("b", "training", waits_for=("a",), needs=ONE),
        Stage("c", "point", waits_for=("a",), needs=ONE),
        Stage("d", "report", waits_for=("b", "c")),
    ]
    office = Office(Needs(1, 8))
    assert dispatch(stages, office, lambda stage, _hand: order.append(stage.name)) == []
    assert order == ["a", "b", "c", "d"]
    assert office.hired == 1  # the report needs no worker, the others took turns with one


def test_what_fits_runs_side_by_side_and_no_more() -> None:
    together = threading.Barrier(3, timeout=20)
    office = Office(Needs(3, 8))
    stages = [Stage(str(number), "training", needs=ONE) for number in range(6)]
    dispatch(stages, office, lambda _stage, _hand: together.wait() and None)
    assert (office.hired, office.most) == (3, 3)


def test_idle_workers_make_room_for_one_that_needs_more() -> None:
    office = Office(Needs(2, 8))
    stages = [Stage("a", "point", needs=ONE), Stage("b", "training", waits_for=("a",), needs=TWO)]
    dispatch(stages, office, lambda _stage, _hand: None)
    assert (office.hired, office.most) == (2, 2)


def test_a_lost_worker_is_replaced_as_long_as_its_stage_gets_on() -> None:
    left = [True] * 9

    def perform(stage: Stage, hand: Hand | None) -> None:
        if left:
            raise Lost("power", got_on=left.pop())

    office = Office(Needs(1, 8))
    said = dispatch([Stage("a", "training", needs=ONE)], office, perform)
    assert said == ["a: its worker was lost (power); another goes on."] * 9
    assert office.hired == 10


def test_the_first_error_ends_it_all() -> None:
    def perform(stage: Stage, hand: Hand | None) -> None:
        if stage.name == "a":
            raise RsoupError("what", "do")

    with pytest.raises(RsoupError, match="what"):
        dispatch([Stage("a", "start", needs=ONE), Stage("b", "report", waits_for=("a",))], Office(Needs(1, 1)), perform)


def test_what_needs_more_than_a_machine_has_is_refused_and_waits_for_a_cluster_to_grow() -> None:
    stages, large = [Stage("a", "training", needs=Needs(4, 1))], Needs(2, 8)
    told = "a needs 4 GPUs and 1 cores, and there are 2 and 8"
    with pytest.raises(RsoupError, match=told):
        dispatch(stages, Office(large), lambda _stage, _hand: None)
    (said,) = dispatch(stages, Office(large, grows=True), lambda _stage, _hand: None)
    assert said.startswith(f"{told}; waiting for the cluster to grow")
    with pytest.raises(RsoupError, match="a needs 9 cores, and there are 8"):
        dispatch([Stage("a", "training", needs=Needs(1, 9))], Office(Needs(0, 8)), lambda _stage, _hand: None)


def test_who_never_answers_is_not_waited_for_once_nobody_can_be_asked() -> None:
    """Ray's calls hang for a minute when its head is gone, and then end the process."""

    class Silent(Office):
        def hire(self, needs: Needs) -> Idler:
            self.gone.set()
            over.wait(60)
            raise AssertionError

    over = threading.Event()
    with pytest.raises(RsoupError, match="gone"):
        dispatch([Stage("a", "training", needs=ONE)], Silent(Needs(1, 1)), lambda _stage, _hand: None)
    over.set()


def test_a_stage_needs_a_machine_that_is_large_enough_not_machines_that_are_so_together() -> None:
    """Ray would keep it waiting for ever, without a word; what fits is done first."""
    done: list[str] = []
    stages = [Stage("a", "training", needs=Needs(4, 1)), Stage("b", "point", needs=ONE), Stage("c", "report")]
    small = [Needs(2, 8)] * 4
    with pytest.raises(RsoupError, match="a needs 4 GPUs and 1 cores of one machine, and the largest of 4 has 2 and 8"):
        dispatch(stages, Office(*small), lambda stage, _hand: done.append(stage.name))
    assert sorted(done) == ["b", "c"]
    assert dispatch(stages, Office(*small, Needs(4, 8)), lambda _stage, _hand: None) == []
