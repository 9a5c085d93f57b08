"""Write one shard of a merged model: the old one's layout, its data worked through in chunks by several threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsoup.adapters.tensorfile import DTYPES, Array, Header, TensorInfo, all_finite, encode_header
from rsoup.errors import AdapterError
from rsoup.mixing.casting import narrow, widen
from rsoup.mixing.changes import Addition, Change, Replacement
from rsoup.mixing.chunks import ELEMENTS, PAGE, THREADS, Memory, Sink, read_into, whole_pages
from rsoup.mixing.parallel import parallel

_COPY_BYTES = 4 << 20


class Rounding(NamedTuple):
    """What casting one chunk lost: the largest error, and the squared norm of the errors."""

    tensor: str
    largest: float
    squared: float


def write_shard(
    shard: Header, path: Path, changes: Mapping[str, Change], metadata: Mapping[str, str]
) -> list[Rounding]:
    """Write a shard with its changes to ``path``, and return the rounding of every chunk that was added to."""
    header = _new_header(shard, metadata)
    with shard.path.open("rb") as source, path.open("wb") as target:
        sink = Sink(target.fileno())
        sink.reserve(len(header) + max(info.end for info in shard.tensors.values()) - shard.data_start)
        target.write(header)
        target.flush()
        files = _Files(source.fileno(), sink, shift=len(header) - shard.data_start)
        results = parallel(lambda job: job(files), _jobs(shard, changes), at_most=THREADS)
    return [result for result in results if result]


class _Files:
    """The old and the new shard, and working memory; offsets are the old one's."""

    def __init__(self, source: int, sink: Sink, shift: int) -> None:
        self._source, self._sink, self._shift = source, sink, shift
        self.memory = Memory()

    def read(self, offset: int, count: int, dtype: np.dtype[Any]) -> Array:
        """Read ``count`` elements into this thread's working memory."""
        return read_into(self._source, offset, self.memory.take("old", count, dtype))

    def write(self, offset: int, array: Array) -> None:
        """Write an array's bytes."""
        self._sink.write(offset + self._shift, array)


_Job = Callable[[_Files], Rounding | None]


def _new_header(shard: Header, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {**shard.metadata, **metadata}}
    for name, info in shard.tensors.items():
        offsets = [info.start - shard.data_start, info.end - shard.data_start]
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": offsets}
    return encode_header(entries, align=PAGE)


def _jobs(shard: Header, changes: Mapping[str, Change]) -> Iterator[_Job]:
    """Yield the chunks of a shard's data: rows of the tensors that change, bytes of those that do not."""
    for name, info in shard.tensors.items():
        change = changes.get(name)
        if change is None:
            for start in range(info.start, info.end, _COPY_BYTES):
                yield _copy(start, min(_COPY_BYTES, info.end - start))
        elif isinstance(change, Addition):
            step = whole_pages(info.shape[-1], DTYPES[info.dtype].itemsize)
            rows = math.prod(info.shape[:-1])
            for row in range(0, rows, step):
                yield _add(name, info, change, slice(row, min(row + step, rows)))
        elif change.rows is not None:
            step = whole_pages(info.shape[-1], DTYPES[info.dtype].itemsize)
            for row in range(0, info.shape[0], step):
                yield _set_rows(name, info, change, slice(row, min(row + step, info.shape[0])))
        else:
            for start in range(0, change.value.size, ELEMENTS):
                yield _replace(name, info, change.value, start)


def _copy(start: int, size: int) -> _Job:
    def job(files: _Files) -> None:
        files.write(start, files.read(start, size, np.dtype(np.uint8)))

    return job


def _replace(name: str, info: TensorInfo, value: Array, start: int) -> _Job:
    dtype = DTYPES[info.dtype]

    def job(files: _Files) -> None:
        with np.errstate(over="ignore"):
            new = value.reshape(-1)[start : start + ELEMENTS].astype(dtype)
        if not all_finite(new):
            raise _not_finite(name, dtype)
        files.write(info.start + start * dtype.itemsize, new)

    return job


def _set_rows(name: str, info: TensorInfo, change: Replacement, rows: slice) -> _Job:
    dtype, columns = DTYPES[info.dtype], info.shape[-1]
    start = info.start + rows.start * columns * dtype.itemsize
    places = [(row - rows.start, at) for at, row in enumerate(change.rows or ()) if rows.start <= row < rows.stop]

    def job(files: _Files) -> None:
        held = files.read(start, (rows.stop - rows.start) * columns, dtype).reshape(-1, columns)
        for row, at in places:
            with np.errstate(over="ignore"):
                held[row] = change.value[at].astype(dtype)
            if not all_finite(held[row]):
                raise _not_finite(name, dtype)
        files.write(start, held)

    return job


def _add(name: str, info: TensorInfo, change: Addition, rows: slice) -> _Job:
    dtype, single = DTYPES[info.dtype], np.dtype(np.float32)
    shape = (rows.stop - rows.start, info.shape[-1])
    count = shape[0] * shape[1]
    start = info.start + rows.start * shape[1] * dtype.itemsize

    def job(files: _Files) -> Rounding:
        exact, other = files.memory.take("exact", count, single), files.memory.take("other", count, single)
        new = files.memory.take("new", count, dtype)
        widen(files.read(start, count, dtype), exact)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            exact += change.product(rows, out=other.reshape(shape)).reshape(-1)
            exact -= narrow(exact, new, rounded=other)
        largest = max(float(exact.max()), -float(exact.min()))
        if not math.isfinite(largest):
            raise _not_finite(name, dtype)
        files.write(start, new)
        return Rounding(name, largest, float(exact @ exact))

    return job


def _not_finite(name: str, dtype: np.dtype[Any]) -> AdapterError:
    return AdapterError(
        f"The merged tensor {name} would hold NaN or infinity in {dtype.name}.",
        "Check the base for such values; if it has none, convert it to bfloat16 or float32 first.",
    )
