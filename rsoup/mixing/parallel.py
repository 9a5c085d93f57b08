"""Work through modules or chunks with one thread per core, each with a linear algebra of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def parallel(function: Callable[[T], R], items: Iterable[T], *, at_most: int | None = None) -> list[R]:
    """Return ``function`` of every item, in order. BLAS keeps to one thread: two layers of threads slow each other."""
    cores = os.cpu_count() or 1
    threads = cores if at_most is None else min(cores, at_most)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(function, items))
