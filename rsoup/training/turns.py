"""One worker at a time makes an adapter, on whichever machine that shares the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def lock_file(run_folder: Path, name: str) -> Path:
    """Return the file whose lock the worker holds that makes the adapter ``name``."""
    return run_folder / ".locks" / name


@contextmanager
def my_turn(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock within the block, after waiting for whoever holds it; it is free again when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire(poll_interval=1.0)
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
