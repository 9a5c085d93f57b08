"""Read tensors of models in chunks, as float32."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

import numpy as np

from rsoup.adapters.tensorfile import DTYPES, Array
from rsoup.mixing.casting import widen
from rsoup.mixing.checkpoints.alignment import Place, Target
from rsoup.mixing.chunks import Memory, read_into

CHUNK = 1 << 18
"""Elements computed at a time. Which entries dare drops depends on it."""
SINGLE = DTYPES["F32"]


def chunk_count(elements: int) -> int:
    """Return how many chunks make so many elements."""
    return -(-elements // CHUNK)


class Files:
    """The open shards of some models, and working memory for each thread."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._files: dict[Path, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def open(self, targets: Iterable[Target]) -> None:
        """Open the files of some tensors; not from several threads."""
        for path in {place.path for target in targets for place in target.places}:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(path.open("rb"))

    def close(self) -> None:
        """Close all files."""
        self._stack.close()
        self._files.clear()

    def inputs(self, target: Target, number: int) -> list[Array]:
        """Return the ingredients' elements of a chunk as float32, in this thread's working memory."""
        start = number * CHUNK
        count = min(CHUNK, target.common - start)
        return [
            self.read(place, start, self.memory.take(f"in{index}", count, SINGLE), "raw")
            for index, place in enumerate(target.places)
        ]

    def read(self, place: Place, start: int, out: Array, role: str) -> Array:
        """Fill ``out`` with a tensor's elements from ``start`` on, as float32."""
        dtype = DTYPES[place.info.dtype]
        offset, file = place.info.start + start * dtype.itemsize, self._files[place.path].fileno()
        if dtype == SINGLE:
            return read_into(file, offset, out)
        return widen(read_into(file, offset, self.memory.take(role, len(out), dtype)), out)

    def raw(self, target: Target, start: int, size: int) -> Array:
        """Return bytes of a tensor that is copied."""
        [place] = target.places
        buffer = self.memory.take("copy", size, np.dtype(np.uint8))
        return read_into(self._files[place.path].fileno(), place.info.start + start, buffer)
