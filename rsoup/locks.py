"""One worker at a time makes a thing, on whichever machine that shares the folder.

A lock belongs to a process: it is free again when the process ends, however it ends, and not while the process is
stopped (SIGSTOP) or waits for a disk. The others then do what else there is to do, and wait. A file server that has not
heard of a whole machine for a while (it is suspended, or cut off) gives its locks to others: whoever goes on then asks
``Turn.is_ours`` before writing.
"""

from __future__ import annotations

import errno
import fcntl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rsoup.errors import RsoupError

PAUSE = 1.0
"""Seconds between two looks at a lock that another worker holds."""
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What a file system without locks says; it counts as one that nobody shares."""


def lock_file(run_folder: Path, name: str) -> Path:
    """Return the file whose lock the worker holds that makes the adapter ``name``."""
    return run_folder / ".locks" / name


def alone(answer: Callable[[], bool]) -> bool:
    """Answer for this process alone."""
    return answer()


@dataclass(frozen=True)
class Turn:
    """A lock that is held, or that a leader holds for this process; its file holds the mark of who took it last."""

    path: Path
    file: IO[Any] | None = None
    mark: str = ""

    @classmethod
    def begun(cls, path: Path, file: IO[Any]) -> Turn:
        """Return the turn of who has just taken a lock."""
        mark = uuid.uuid4().hex
        file.truncate(0)
        file.write(mark)
        file.flush()
        return cls(path, file, mark)

    def is_ours(self) -> bool:
        """Tell whether no other worker has been given the lock meanwhile."""
        try:
            return self.file is None or (_take(self.file) and self.path.read_text() == self.mark)
        except OSError:  # the file server has forgotten us, or the folder is gone
            return False

    def check(self) -> None:
        """Raise RsoupError if the lock is another worker's."""
        if not self.is_ours():
            raise RsoupError(
                f"{self.path.name}: another worker has taken over while this machine was suspended or cut off.",
                "Nothing is lost: the same command waits for the other, and goes on from what there is.",
            )


NOBODY_ELSE = Turn(Path())
"""The turn where nobody else could take it."""


class Taken(Exception):  # noqa: N818 - not an error: there is something else to do
    """Another worker holds a lock that was not to be waited for."""


@contextmanager
def my_turn(
    path: Path,
    on_wait: Callable[[], None] = lambda: None,
    decide: Callable[[Callable[[], bool]], bool] = alone,
    *,
    wait: bool = True,
) -> Iterator[Turn]:
    """Hold the lock within the block, after waiting for whoever holds it; it is free again when a process dies.

    ``decide`` asks whether the lock is ours; processes that work together have their leader answer for all. Without
    ``wait``, raise Taken if another holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        asked = False

        def take() -> bool:
            nonlocal asked
            asked = True
            return _take(file)

        if not decide(take):
            if not wait:
                raise Taken
            on_wait()
            while not decide(take):
                time.sleep(PAUSE)
        yield Turn.begun(path, file) if asked else Turn(path)


def is_taken(path: Path) -> bool:
    """Tell whether another worker holds the lock now."""
    if not path.is_file():
        return False
    with path.open("a") as file:
        return not _take(file)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock within the block, and yield whether it is ours; it is free again when a process dies."""
    with path.open("a") as file:
        yield _take(file, wait=wait)


def _take(file: IO[Any], *, wait: bool = False) -> bool:
    """Take the lock of an open file, which closing it lets go; tell whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in UNSUPPORTED:
            raise
    return True
