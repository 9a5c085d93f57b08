"""Judge what a model wrote in a process of its own: it may keep a parser busy for ever, and a process can be ended.

The process reads a line of JSON for each call and answers with one. Python's signals end what takes too long, in any
thread of the caller; a watchdog ends the process where they are not looked at, and the next call starts another.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from rsoup.errors import first_line

SECONDS = 5.0
"""After which a call is ended."""
GRACE = 1.0
"""Seconds after which the whole process is ended, if that did not end the call."""
MEMORY = 8 << 30
"""Bytes of addresses that the process may have: a number of any length would take all there are."""


class LateError(Exception):
    """A call was ended: it took too long, or too much memory."""


class Bounded:
    """Calls ``module:function``, whose arguments and value are JSON's, for at most ``SECONDS`` each time."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Return the function's value; LateError if it was ended, RuntimeError with what it raised."""
        with self._lock:
            answer = self._answer(json.dumps([SECONDS, arguments]))
        if answer is None or "late" in answer:
            raise LateError
        if "problem" in answer:
            raise RuntimeError(answer["problem"])
        return answer["value"]

    def _answer(self, line: str) -> dict[str, Any] | None:
        """Return what the process answers, None if it ended at it."""
        process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        except BaseException:  # an interruption: what comes would answer the next call
            self._end()
            raise
        if not answer:
            self._end()
            return None
        found: dict[str, Any] = json.loads(answer)
        return found

    def _begin(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", __name__, self._where]
        paths = os.pathsep.join(path or "." for path in sys.path)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "PYTHONPATH": paths}, encoding="utf-8"
        )
        self._process = process
        self._finalizer = weakref.finalize(self, _end, process)
        ready = process.stdout.readline() if process.stdout else ""
        if not ready:
            self._end()
            raise RuntimeError(f"{self._where} cannot be started in a process of its own")
        return process

    def _end(self) -> None:
        self._process = None
        self._finalizer()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@cache
def bounded(where: str) -> Bounded:
    """Return what calls a function in a process that all callers share."""
    return Bounded(where)


class _Late(BaseException):
    """Raised in the middle of a call; no handler of exceptions catches it."""


def _raise_late(_number: int, _frame: FrameType | None) -> None:
    raise _Late


def main() -> None:
    """Be the process: answer each line with the function's value, a problem, or that it was late."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the caller, by the end of its input
    signal.signal(signal.SIGALRM, _raise_late)
    with suppress(ValueError, OSError):  # a system without such a limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # standard output is for answers alone
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    print("{}", file=answers, flush=True)
    with Path(os.devnull).open("w") as nowhere:
        for line in sys.stdin:
            seconds, arguments = json.loads(line)
            faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=nowhere)
            answer = _called(function, arguments, seconds)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(answer), file=answers, flush=True)


def _called(function: Any, arguments: list[Any], seconds: float) -> dict[str, Any]:
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return {"value": function(*arguments)}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (_Late, MemoryError):
        return {"late": True}
    except Exception as problem:
        return {"problem": f"{type(problem).__name__}: {first_line(problem)}"}


if __name__ == "__main__":
    main()
