"""Processes of their own that begin with everything imported: forked from one that has imported it once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

IMPORTED = ("rsoup.experiment", "rsoup.training.expert", "rsoup.evaluation.sweep", "rsoup.rewards.words", "pytest")
"""What a process begins with; it imports the rest, the command line above all, by itself."""
PATIENCE = 120.0
"""Seconds after which a process that should end has failed."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*IMPORTED])


class Forked:
    """A process that calls a function of some module; what it writes can be read meanwhile."""

    def __init__(self, call: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> None:
        self._folder = TemporaryDirectory(prefix="rsoup-forked-")
        self._out, self._err = (Path(self._folder.name) / name for name in ("out", "err"))
        own = {**os.environ, **(environment or {})}
        files = (str(self._out), str(self._err))
        self._process = _context.Process(target=_become, args=(files, own, Path.cwd(), call, arguments))
        self._process.start()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    @property
    def out(self) -> str:
        """What it has written to stdout."""
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self) -> str:
        """What it has written to stderr."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def code(self) -> int | None:
        """How it ended (a signal: its number below 0), None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for its end, and return its code."""
        self._process.join(seconds)
        assert self.code is not None, f"still running after {seconds} s: {self.err}"
        return self.code

    def wait_for(self, ready: Callable[[Forked], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is true of it."""
        deadline = time.monotonic() + seconds
        while not ready(self):
            assert self.code is None, self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.005)


def _become(
    files: tuple[str, str], environment: dict[str, str], folder: Path, call: Callable[..., Any], arguments: Any
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    call(*arguments)


def tell_modules() -> None:
    """Print the names of what such a process has imported."""
    print(*sys.modules)


def _command(words: tuple[str, ...]) -> None:
    from rsoup.cli import main

    sys.argv = ["rsoup", *words]
    main()


def command(*words: object, environment: Mapping[str, str] | None = None) -> Forked:
    """Begin a command of rsoup."""
    return Forked(_command, tuple(map(str, words)), environment=environment)


def ranks(count: int, *words: object, environment: Mapping[str, str] | None = None) -> list[Forked]:
    """Begin a command as a launcher does: in so many processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= environment or {}
    return [
        command(*words, environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]
