"""Work through large files in chunks with several threads: working memory, reading, writing."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np

from rsoup.adapters.tensorfile import Array, raw_bytes

ELEMENTS = 1 << 19
"""Computed at a time: few enough for the processor's cache, enough for few steps of Python."""
PAGE = 4096
"""Bytes; a write of whole pages is the cheapest."""
THREADS = 8
"""As they write in turns, more would take memory and save no time."""
_WRITE_BYTES = 1 << 20


class Memory:
    """Working memory of each thread by its role: fresh pages cost more than the arithmetic."""

    def __init__(self) -> None:
        self._own = threading.local()

    def take(self, role: str, count: int, dtype: np.dtype[Any]) -> Array:
        """Return ``count`` elements with whatever they held before."""
        size = count * dtype.itemsize
        memory: Array | None = getattr(self._own, role, None)
        if memory is None or memory.nbytes < size:
            memory = np.empty(size, np.uint8)
            setattr(self._own, role, memory)
        return memory[:size].view(dtype)


class Sink:
    """A new file. One thread writes at a time: the kernel locks the file for a write, and the others would spin."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._writing = threading.Lock()

    def reserve(self, size: int) -> None:
        """Reserve the space on the disk at once, which makes writing cheaper, and a lack of it known before."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, 0, size)

    def write(self, offset: int, array: Array) -> None:
        """Write an array's bytes."""
        view = raw_bytes(array)
        with self._writing:
            while view:
                size = os.pwrite(self._file, view[:_WRITE_BYTES], offset)
                view, offset = view[size:], offset + size


def read_into(file: int, offset: int, array: Array) -> Array:
    """Fill a contiguous array with a file's bytes from ``offset`` on; OSError if the file ends before."""
    view = raw_bytes(array)
    while view:
        size = os.preadv(file, [view], offset)
        if not size:
            raise OSError(0, "a file became shorter while it was read")
        view, offset = view[size:], offset + size
    return array


def whole_pages(columns: int, itemsize: int, elements: int = ELEMENTS) -> int:
    """Return how many rows make a chunk: whole pages of the file, where a chunk holds that many."""
    rows, whole = elements // columns, PAGE // math.gcd(PAGE, columns * itemsize)
    return max(1, rows - rows % whole if rows >= whole else rows)
