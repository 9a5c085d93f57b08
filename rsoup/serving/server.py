"""Serve a run: load, answer until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from rsoup.evaluation.memory import LARGEST, LARGEST_ELSEWHERE, SHARE, free_bytes
from rsoup.serving.app import Access, Api
from rsoup.serving.engine import Engine
from rsoup.serving.opening import Opened, open_run
from rsoup.serving.served import Served
from rsoup.serving.source import Source
from rsoup.serving.tradeoff import Tradeoffs
from rsoup.serving.worker import Worker

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CONTEXT = 2048
"""Tokens of a request to have room for, where the model does not say what it can read."""


@dataclass(frozen=True)
class Settings:
    """How a run is served. ``rows`` and ``cache_tokens`` follow from the device and its memory if they are None."""

    host: str = "127.0.0.1"
    rows: int | None = None
    cache_tokens: int | None = None
    queue: int = 256
    max_tokens: int = 512
    grace: float = 30.0
    extrapolate: bool = False


def serve(
    source: Source,
    settings: Settings,
    on_ready: Callable[[str], None],
    say: Callable[[str], None],
    *,
    listener: socket.socket,
    key: str | None,
) -> None:
    """Serve until SIGINT or SIGTERM; then answers on their way end, or are told after ``grace`` seconds.

    ``on_ready`` gets the URL; requests are asked for ``key``, if there is one.
    """
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that went away
    opened = open_run(source)
    for warning in opened.warnings:
        say(f"warning: {warning}")
    worker = Worker(make_engine(opened.served, settings, say), say)
    host, port = listener.getsockname()[:2]
    access = Access(key, LOOPBACK if settings.host in LOOPBACK else None)
    app = make_api(opened, worker, access, settings, say).app()
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=int(settings.grace) + 5,
    )  # fmt: skip
    server = _Server(config, worker.engine, settings.grace)
    worker.start()
    listener.listen(config.backlog)
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    with _signals_left_to_the_server():
        server.run([listener])
    worker.engine.stop(at_once=True)
    worker.join()


def make_engine(served: Served, settings: Settings, say: Callable[[str], None]) -> Engine:
    """Return an engine whose batch and cache fit the device."""
    rows = settings.rows or LARGEST.get(served.model.device.type, LARGEST_ELSEWHERE)
    tokens = settings.cache_tokens
    if tokens is None:
        fitting = int(SHARE * free_bytes(served.model.device)) // served.bytes_per_token()
        tokens = max(1, min(rows * (served.context or CONTEXT), fitting))
    return Engine(
        served,
        rows=rows,
        cache_tokens=tokens,
        queue=settings.queue,
        on_problem=lambda problem: say(f"error: {problem}"),
    )


def make_tradeoffs(opened: Opened, settings: Settings) -> Tradeoffs:
    """Return the mixes of an opened run."""
    names, rewards = list(opened.adapters), list(opened.rewards)
    return Tradeoffs(names, rewards, opened.prefer, extrapolate=settings.extrapolate)


def make_api(opened: Opened, worker: Worker, access: Access, settings: Settings, say: Callable[[str], None]) -> Api:
    """Return the endpoints of an opened run."""
    return Api(opened, worker, make_tradeoffs(opened, settings), access, max_tokens=settings.max_tokens, say=say)


class _Server(uvicorn.Server):
    """A server that gives the answers on their way some time when it is told to stop."""

    def __init__(self, config: uvicorn.Config, engine: Engine, grace: float) -> None:
        super().__init__(config)
        self._engine, self._grace = engine, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.stop()
        ending = asyncio.get_running_loop().call_later(self._grace, lambda: self._engine.stop(at_once=True))
        await super().shutdown(sockets)
        ending.cancel()


@contextmanager
def _signals_left_to_the_server() -> Iterator[None]:
    """Let the server, which raises the signals that stopped it again, be the only one that minds them."""
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
