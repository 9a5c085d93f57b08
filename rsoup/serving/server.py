"""Serve a run: bind, load, answer until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from rsoup.errors import RecipeError, RsoupError
from rsoup.evaluation.memory import LARGEST, LARGEST_ELSEWHERE, SHARE, free_bytes
from rsoup.serving.app import Access, Api
from rsoup.serving.engine import Engine
from rsoup.serving.opening import Opened, Source, open_run
from rsoup.serving.served import Served
from rsoup.serving.tradeoff import Tradeoffs
from rsoup.serving.worker import Worker

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CONTEXT = 2048
"""Tokens of a request to have room for, where the model does not say what it can read."""


@dataclass(frozen=True)
class Settings:
    """How a run is served. ``rows`` and ``cache_tokens`` follow from the device and its memory if they are None."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_env: str | None = None
    rows: int | None = None
    cache_tokens: int | None = None
    queue: int = 256
    max_tokens: int = 512
    grace: float = 30.0
    extrapolate: bool = False


def serve(source: Source, settings: Settings, on_ready: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then answers on their way end, or are told after ``grace`` seconds.

    ``on_ready`` gets the URL. RsoupError before anything is loaded if the port is taken or the key is missing.
    """
    key = key_of(settings.api_key_env)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that went away
    with _bound(settings) as listener:
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


def key_of(name: str | None) -> str | None:
    """Return the key that an environment variable holds; RecipeError if it holds none."""
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise RecipeError(f"--api-key-env: the variable {name} is empty or not set.", f"export {name}=...")
    return key


@contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """Yield a socket with the address, before a model is loaded in vain."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as problem:
        raise RsoupError(
            f"--host {settings.host}: is no address here ({problem}).", "Give another --host."
        ) from problem
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except (OSError, OverflowError) as problem:
            raise RsoupError(
                f"{settings.host}:{settings.port} cannot be bound ({getattr(problem, 'strerror', problem)}).",
                "Give another --port (0 takes a free one) or --host.",
            ) from problem
        yield listener


@contextmanager
def _signals_left_to_the_server() -> Iterator[None]:
    """Let the server, which raises the signals that stopped it again, be the only one that minds them."""
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
