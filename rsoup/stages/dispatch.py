"""Give stages to workers as soon as what they wait for is there and a worker is free."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rsoup.errors import RsoupError
from rsoup.stages.graph import Needs, Stage, fitting, ready

ATTEMPTS = 4
"""How often a stage may lose its worker without having got on, until it counts as the stage's own fault."""
PAUSE = 0.5
"""Seconds between two looks at what is free, if nothing happens."""


class Lost(Exception):  # noqa: N818 - not an error: the stage is done again
    """A worker is gone; ``got_on`` tells whether it had done part of its stage."""

    def __init__(self, reason: str, *, got_on: bool) -> None:
        super().__init__(reason)
        self.reason, self.got_on = reason, got_on


class Hand(Protocol):
    """A worker: it answers calls of the methods of a Workshop, or raises Lost."""

    needs: Needs

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what a method returns, once it does."""

    def work(self, method: str, *arguments: Any, look: Callable[[], None]) -> Any:
        """Return what a method returns, and look in every now and then until it does."""

    def put(self, thing: Any) -> Any:
        """Return what stands for a thing in arguments; it is sent to each machine once."""


class Crew(Protocol):
    """Those who do the work; ``grows`` tells whether there may be more machines later."""

    @property
    def grows(self) -> bool: ...

    def machines(self) -> Sequence[Needs]:
        """Return what each machine has, taken or not."""

    def check(self) -> None:
        """Raise RsoupError once nobody can be asked any more."""

    def hire(self, needs: Needs) -> Hand:
        """Return a new worker."""

    def dismiss(self, hand: Hand) -> None:
        """Let a worker go."""


class Dispatcher:
    """Does stages; each runs in a thread of this process that talks to its worker.

    So does what hands them out: whoever is asked may never answer, which ``run`` does not wait for.
    """

    def __init__(self, crew: Crew, perform: Callable[[Stage, Hand | None], None], say: Callable[[str], None]) -> None:
        self._crew, self._perform, self._say = crew, perform, say
        self._changed = threading.Condition()
        self._done: set[str] = set()
        self._begun: dict[str, Hand | None] = {}
        self._idle: list[Hand] = []
        self._lost: Counter[str] = Counter()
        self._problems: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._over = False

    def run(self, stages: Sequence[Stage]) -> None:
        """Do all stages; raise the first error of one, after the others have been told to stop."""
        handing = threading.Thread(target=self._hand_out, args=(stages,), daemon=True)
        handing.start()
        try:
            while handing.is_alive():
                handing.join(PAUSE)
                self._crew.check()
        finally:
            self._over = True
        if self._problems:
            raise self._problems[0]

    def stop(self, seconds: float) -> None:
        """Tell those who work to stop, and wait for them so long."""
        with self._changed:
            busy = [hand for hand in self._begun.values() if hand is not None]
        for hand in busy:
            threading.Thread(target=self._tell_to_stop, args=(hand,), daemon=True).start()
        for thread in self._threads:
            thread.join(seconds / max(1, len(busy)))

    def _hand_out(self, stages: Sequence[Stage]) -> None:
        with self._changed:
            try:
                while len(self._done) < len(stages) and not self._problems and not self._over:
                    self._begin_what_can(stages)
                    self._changed.wait(PAUSE)
            except BaseException as problem:
                self._problems.append(problem)

    def _begin_what_can(self, stages: Sequence[Stage]) -> None:
        each = self._crew.machines()
        machines = sum(each, Needs())
        waiting = ready(stages, self._done, set(self._begun))
        possible = [stage for stage in waiting if any(stage.needs.on(machines).fits(own) for own in (Needs(), *each))]
        chosen = fitting(possible, machines.beside(self._busy()), machines)
        if not chosen and not self._begun:
            chosen = waiting[:1]
            too_much = _too_much(chosen[0].name, chosen[0].needs.on(machines), each)
            if not self._crew.grows:
                raise RsoupError(f"{too_much}.", "Lower training.gpus or training.cpus.")
            self._say(f"{too_much}; waiting for the cluster to grow (training.gpus, training.cpus).")
        for stage in chosen:
            needs = stage.needs.on(machines)
            hand = None if needs == Needs() else self._hand(needs, machines)
            self._begun[stage.name] = hand
            thread = threading.Thread(target=self._do, args=(stage, hand), daemon=True)
            self._threads = [*(own for own in self._threads if own.is_alive()), thread]
            thread.start()

    def _busy(self) -> Needs:
        return sum((hand.needs for hand in self._begun.values() if hand is not None), Needs())

    def _hand(self, needs: Needs, machines: Needs) -> Hand:
        """Return a worker for a stage: an idle one, or a new one, for which idle ones of another kind make room."""
        for hand in self._idle:
            if hand.needs == needs:
                self._idle.remove(hand)
                return hand
        free = machines.beside(self._busy())
        while self._idle and not needs.fits(free.beside(sum((own.needs for own in self._idle), Needs()))):
            self._crew.dismiss(self._idle.pop(0))
        return self._crew.hire(needs)

    def _do(self, stage: Stage, hand: Hand | None) -> None:
        try:
            self._perform(stage, hand)
        except Lost as lost:
            self._end(stage, hand, lost=lost)
        except BaseException as problem:
            self._end(stage, hand, problem=problem)
        else:
            self._end(stage, hand)

    def _end(
        self, stage: Stage, hand: Hand | None, *, lost: Lost | None = None, problem: BaseException | None = None
    ) -> None:
        with self._changed:
            del self._begun[stage.name]
            if lost is not None:
                self._note_loss(stage, hand, lost)
            elif problem is not None:
                self._problems.append(problem)
            else:
                self._done.add(stage.name)
                if hand is not None:
                    self._idle.append(hand)
            self._changed.notify()

    def _note_loss(self, stage: Stage, hand: Hand | None, lost: Lost) -> None:
        if hand is not None:
            self._crew.dismiss(hand)
        self._lost[stage.name] = 0 if lost.got_on else self._lost[stage.name] + 1
        if self._lost[stage.name] >= ATTEMPTS:
            self._problems.append(
                RsoupError(
                    f"{stage.name}: its worker was lost {ATTEMPTS} times in a row before it had done anything "
                    f"({lost.reason}).",
                    "Look at the memory of its machine: training.prompts_per_pass and evaluation.batch_size save it.",
                )
            )
        elif not self._problems and not self._over:
            self._say(f"{stage.name}: its worker was lost ({lost.reason}); another goes on.")

    def _tell_to_stop(self, hand: Hand) -> None:
        try:
            hand.call("stop")
        except Exception:  # it is gone, which is what was wanted
            return


def _too_much(name: str, needs: Needs, each: Sequence[Needs]) -> str:
    largest = max(each, key=lambda own: (own.gpus, own.cpus), default=Needs())
    what = f"{needs.gpus} GPUs and {needs.cpus} cores" if needs.gpus else f"{needs.cpus} cores"
    there = f"{largest.gpus} and {largest.cpus}" if needs.gpus else str(largest.cpus)
    if len(each) > 1:
        return f"{name} needs {what} of one machine, and the largest of {len(each)} has {there}"
    return f"{name} needs {what}, and there are {there}"
