"""Keeps an engine going in a thread of its own, and brings what it delivers to who awaits it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from rsoup.errors import first_line
from rsoup.serving.engine import Engine
from rsoup.serving.errors import FailedError, RequestError
from rsoup.serving.jobs import Event, Job, Piece, Request


class Worker:
    """The thread of an engine. ``say`` is told what goes wrong in it."""

    def __init__(self, engine: Engine, say: Callable[[str], None]) -> None:
        self.engine, self._say = engine, say
        self._thread = threading.Thread(target=self._work, name="rsoup-engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until a stopped engine has answered what was on its way."""
        self._thread.join()

    def _work(self) -> None:
        engine = self.engine
        with engine.served.experts:
            while engine.wait() and not (engine.stopping and not engine.running):
                try:
                    engine.step()
                except Exception as problem:
                    self._say(f"error: {type(problem).__name__}: {first_line(problem)}")
                    engine.abandon(FailedError(f"Computing the answer failed: {first_line(problem)}."))


class Answering:
    """The answers to several requests, asked at once: RequestError, and nothing asked, if one of them is refused.

    Choices are numbered through. Close it, and its places are free.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        self._jobs: list[Job] = []
        self.choices = 0
        if len(requests) > engine.limits["queue"]:
            raise RequestError(
                f"{len(requests)} prompts are more than the {engine.limits['queue']} that may wait here.",
                "Send fewer at once.",
                param="prompt",
            )
        try:
            for request in requests:
                job = Job(request, self._deliverer(self.choices))
                engine.submit(job)
                self._jobs.append(job)
                self.choices += request.choices
        except RequestError:
            self.close()
            raise

    def close(self) -> None:
        """Give up what is not answered yet."""
        for job in self._jobs:
            job.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what the choices gain until all have ended; RequestError if that fails on the way."""
        left = self.choices
        while left:
            event = await self._events.get()
            if isinstance(event, RequestError):
                raise event
            left -= event.finish is not None
            yield event

    def _deliverer(self, first: int) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            numbered = replace(event, choice=first + event.choice) if isinstance(event, Piece) else event
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._events.put_nowait, numbered)

        return deliver
