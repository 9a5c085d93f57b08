"""Workers as Ray actors, on this machine or on many."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rsoup.errors import RsoupError, first_line
from rsoup.stages.address import GO_ON, HERE, START, Head, HeadGoneError
from rsoup.stages.dispatch import Lost
from rsoup.stages.graph import Needs

LOOK_EVERY = 1.0
"""Seconds between two looks at what a worker is doing."""
HEAD_PATIENCE = 30.0
"""Seconds that a cluster's head may be gone; Ray itself gives up after 60, and takes the process with it."""
CALLS_AT_ONCE = 3
"""An order, a look at it, and a stop."""


class Actor:
    """A worker that is a Ray actor; the first call waits until there is room for it."""

    def __init__(self, kind: Any, needs: Needs) -> None:
        self.needs = needs
        self._actor = kind.options(num_gpus=needs.gpus, num_cpus=needs.cpus, max_concurrency=CALLS_AT_ONCE).remote()

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what a method returns."""
        return self.work(method, *arguments, look=lambda: None, every=None)

    def work(self, method: str, *arguments: Any, look: Callable[[], None], every: float | None = LOOK_EVERY) -> Any:
        """Return what a method returns, and look in every now and then until it does."""
        try:
            pending = getattr(self._actor, method).remote(*arguments)
            while not ray.wait([pending], timeout=every)[0]:
                look()
            return ray.get(pending)
        except RayTaskError as problem:
            cause = problem.cause
            if isinstance(cause, RsoupError):
                raise cause from None
            raise RsoupError(
                f"A worker failed with {type(cause).__name__}: {first_line(cause)}.", "Look at Ray's logs."
            ) from problem
        except RayError as problem:
            raise Lost(first_line(problem), got_on=False) from problem

    def put(self, thing: Any) -> Any:
        """Put a thing into Ray's object store."""
        return ray.put(thing)

    def close(self) -> None:
        """End the worker."""
        with suppress(RayError):
            ray.wait([self._actor.close.remote()], timeout=2.0)
        with suppress(RayError):
            ray.kill(self._actor)


class Cluster:
    """Hires workers of a kind wherever Ray has room for them."""

    def __init__(self, kind: type[Any], head: Head, *, grows: bool) -> None:
        self.grows = grows
        self._kind, self._head = ray.remote(kind), head
        self._actors: list[Actor] = []
        self._machines: list[Needs] = []

    def machines(self) -> list[Needs]:
        """Return what each machine has, the last that is known while the head does not answer."""
        if self._head.is_there():
            resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._machines = [Needs(int(own.get("GPU", 0)), int(own.get("CPU", 0))) for own in resources]
            if not self._machines and not self.grows:
                raise HeadGoneError("Ray's worker on this machine (raylet) is gone.", GO_ON)
        return self._machines

    def check(self) -> None:
        """Raise RsoupError once the head has been gone for too long."""
        self._head.answers()

    def hire(self, needs: Needs) -> Actor:
        """Return a new worker."""
        actor = Actor(self._kind, needs)
        self._actors.append(actor)
        return actor

    def dismiss(self, hand: Any) -> None:
        """End a worker."""
        self._actors.remove(hand)
        if self._head.is_there():  # Ray waits for it otherwise
            hand.close()

    def close(self) -> None:
        """End all workers."""
        for actor in self._actors:
            actor.close()
        self._actors = []


@contextmanager
def connected(address: str, kind: type[Any]) -> Iterator[Cluster]:
    """Yield a cluster that hires workers of a kind; what was started for it ends with the block.

    If this process is connected to Ray already, the connection is used and stays.
    """
    mine = not ray.is_initialized()
    if mine:
        _connect(address)
    here = address == HERE
    client = address.startswith("ray://")
    place = "" if client else ray.get_runtime_context().gcs_address
    cluster = Cluster(kind, Head(place, 0.0 if here else HEAD_PATIENCE), grows=not here)
    try:
        yield cluster
    except HeadGoneError:  # nobody is left to be told, for which Ray would wait at the end of the process
        atexit.register(_end_at_once)
        raise
    except BaseException:
        _leave(cluster, mine=mine)
        raise
    else:
        _leave(cluster, mine=mine)


def _end_at_once() -> None:
    """End the process without what Ray does at its end; its reaper removes what this process had started."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _leave(cluster: Cluster, *, mine: bool) -> None:
    cluster.close()
    if mine:
        ray.shutdown()


def _connect(address: str) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == HERE:
        settings |= {"include_dashboard": False}
    else:  # the code that runs here runs there
        settings |= {"runtime_env": {"py_modules": [str(Path(__file__).parents[1])]}}
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError, RuntimeError, OSError, RayError) as problem:
        raise RsoupError(
            f"--ray {address}: Ray cannot be reached or started ({first_line(problem)}).",
            f"{START} One that asks for a token gets it with RAY_AUTH_MODE=token.",
        ) from problem
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
