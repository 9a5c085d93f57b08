"""Workers without Ray: workshops in threads of this process, which can be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rsoup.stages.dispatch import Lost
from rsoup.stages.graph import Needs
from rsoup.stages.workshop import Workshop


class InThread:
    """A worker of this process; ``lose_after`` so many looks it is gone, and what it is at with it."""

    def __init__(self, needs: Needs, lose_after: int | None = None) -> None:
        self.needs, self.workshop = needs, Workshop()
        self._left = lose_after

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.workshop, method)(*arguments)

    def work(self, method: str, *arguments: Any, look: Callable[[], None]) -> Any:
        found: list[Any] = []

        def do() -> None:
            try:
                found.append(self.call(method, *arguments))
            except BaseException as problem:
                found.append(problem)

        thread = threading.Thread(target=do)
        thread.start()
        while thread.is_alive():
            thread.join(0.01)
            look()
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self.workshop.stop()
                    thread.join()
                    raise Lost("a test", got_on=False)
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def put(self, thing: Any) -> Any:
        return thing


class Crew:
    """Hires workers of this process on a machine of so many cores; notes their folders."""

    grows = False

    def __init__(self, cores: int = 1, losing: tuple[int, ...] = ()) -> None:
        self.hired: list[InThread] = []
        self._cores, self._losing = cores, list(losing)

    def machines(self) -> list[Needs]:
        return [Needs(0, self._cores)]

    def check(self) -> None:
        pass

    def hire(self, needs: Needs) -> InThread:
        self.hired.append(InThread(needs, self._losing.pop(0) if self._losing else None))
        return self.hired[-1]

    def dismiss(self, hand: InThread) -> None:
        hand.workshop.close()

    def close(self) -> None:
        for hand in self.hired:
            hand.workshop.close()
