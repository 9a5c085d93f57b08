"""One worker at a time makes a thing, on whichever machine that shares the folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PAUSE = 1.0
"""Seconds between two looks at a lock that another worker holds."""


def lock_file(run_folder: Path, name: str) -> Path:
    """Return the file whose lock the worker holds that makes the adapter ``name``."""
    return run_folder / ".locks" / name


def alone(answer: Callable[[], bool]) -> bool:
    """Answer for this process alone."""
    return answer()


@contextmanager
def my_turn(
    path: Path, on_wait: Callable[[], None] = lambda: None, decide: Callable[[Callable[[], bool]], bool] = alone
) -> Iterator[None]:
    """Hold the lock within the block, after waiting for whoever holds it; it is free again when a process dies.

    ``decide`` asks whether the lock is ours; processes that work together have their leader answer for all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)

    def attempt() -> bool:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    if not decide(attempt):
        on_wait()
        while not decide(attempt):
            time.sleep(PAUSE)
    try:
        yield
    finally:
        lock.release()


def is_taken(path: Path) -> bool:
    """Tell whether another worker holds the lock now."""
    if not path.parent.is_dir():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock within the block, and yield whether it is ours; it is free again when a process dies.

    A file system without locks counts as one that nobody shares.
    """
    lock, mine = FileLock(path), True
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        mine = False
    except (OSError, NotImplementedError):
        pass
    try:
        yield mine
    finally:
        lock.release()
