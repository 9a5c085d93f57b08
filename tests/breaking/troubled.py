"""A command in a process of its own, in trouble at one of the moments at which it touches files."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forking import Forked

TOUCHES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree")
"""Audit events of Python that change files; ``open`` counts if it is for writing."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MAKES = ("open", "os.rename", "os.mkdir", "os.link")
"""Those that need room on the disk."""

Kind = Literal["none", "kill", "term", "int", "full", "denied"]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
CODES = {"full": errno.ENOSPC, "denied": errno.EACCES}


@dataclass(frozen=True)
class Trouble:
    """What happens when a command touches the files in ``folder`` for the ``at``-th time, and, of errors, ever after.

    Only touches of what ``path``, a regular expression, is found in count. ``largest`` is the size beyond which no
    file may grow, ``user`` whose rights the command has.
    """

    folder: Path
    kind: Kind = "none"
    at: int = 0
    path: str = ""
    largest: int | None = None
    user: int | None = None


class _Hook:
    """Counts the touches of files, and makes trouble at one of them."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble, self._folder = trouble, str(trouble.folder)
        self.touches = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in TOUCHES or not self._counts(event, arguments):
            return
        number, kind = self.touches, self._trouble.kind
        self.touches += 1
        if number == self._trouble.at and kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[kind])
        if number >= self._trouble.at and kind in CODES and event in MAKES:
            raise OSError(CODES[kind], os.strerror(CODES[kind]), str(arguments[0]))

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return False
        relative = event in ("os.remove", "os.rmdir") and arguments[1] != -1
        place = str(arguments[0])
        return (relative or place.startswith(self._folder)) and re.search(self._trouble.path, place) is not None


def _in_trouble(trouble: Trouble, words: tuple[str, ...], told: str) -> None:
    from rsoup.cli import main

    os.chdir(trouble.folder)
    if trouble.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trouble.largest, trouble.largest))
    if trouble.user is not None:
        os.setgroups([])
        os.setgid(trouble.user)
        os.setuid(trouble.user)
    hook = _Hook(trouble)
    sys.addaudithook(hook)
    sys.argv = ["rsoup", *words]
    try:
        main()
    finally:
        with suppress(OSError):
            Path(told).write_text(str(hook.touches))


def begin(words: list[Any], trouble: Trouble, environment: Mapping[str, str] | None = None) -> Forked:
    """Begin a command that will be in trouble."""
    told = trouble.folder.parent / "touches"
    return Forked(_in_trouble, trouble, tuple(map(str, words)), str(told), environment=environment)


def touches(trouble: Trouble) -> int:
    """Return how often the last command touched files."""
    return int((trouble.folder.parent / "touches").read_text())


def check_end(process: Forked, *, signals: tuple[int, ...] = ()) -> int:
    """Wait for the end of a command, check what it says at it, and return its code."""
    code, err = process.ended(), process.err
    told = f"{code}: {err[-3000:]}"
    assert "Traceback" not in err, told
    assert "Exception ignored" not in err, told
    if code == 1:
        lines = [line for line in err.splitlines() if line.startswith(("error:", "try:"))]
        assert [line.partition(":")[0] for line in lines] == ["error", "try"], told
        assert err.splitlines()[-2:] == lines, told
        assert "None" not in lines[0], told
        assert all(len(line) > 12 for line in lines), told
    elif code == 130:
        assert "Interrupted." in err, told
    else:
        assert code == 0 or -code in signals, told
    return code
