"""The safetensors format: read strictly and without copying, written in one pass."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from rsoup.errors import AdapterError, reason_of

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_EXPONENT: dict[np.dtype[Any], np.unsignedinteger[Any]] = {
    DTYPES["F32"]: np.uint32(0x7F800000),
    DTYPES["F16"]: np.uint16(0x7C00),
    DTYPES["BF16"]: np.uint16(0x7F80),
}
_CHUNK = 1 << 18
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_MAX_HEADER = 32 << 20
_MAX_DIMENSIONS = 8
_LENGTH_BYTES = 8  # that open the file, and say how long the JSON is
_MAX_NAME = 300
_REPLACE = "The file is damaged or was not written whole: copy or download it again."


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in its file; ``start`` and ``end`` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds, its tensors in the order of their bytes."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """Read and check a safetensors header; the file's data is not touched.

    The tensors must fill the file exactly, without gaps or overlaps. Format:
    https://huggingface.co/docs/safetensors (8 bytes of length, JSON, data).
    """
    try:
        size = _regular_size(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER):
                raise AdapterError(f"{path}: announces a header of {length:,} bytes in a file of {size:,}.", _REPLACE)
            text = file.read(length)
    except OSError as problem:
        raise AdapterError(
            f"{path}: cannot be read ({reason_of(problem)}).", "Check the path and its rights."
        ) from problem
    entries = _parse(path, text)
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    start = _LENGTH_BYTES + length
    tensors = {name: _tensor_info(path, name, entry, start) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: item[1].start))
    _check_layout(path, ordered, start, size)
    return Header(path, ordered, metadata, start)


def map_tensors(header: Header, only: str | None = None) -> dict[str, Array]:
    """Return every tensor, or ``only`` one, as a read-only view of the mapped file; the dtype must be in DTYPES."""
    wanted = header.tensors if only is None else {only: header.tensors[only]}
    for name, info in wanted.items():
        if info.dtype not in DTYPES:
            raise AdapterError(
                f"{header.path}: tensor {name} has dtype {info.dtype}; rsoup mixes {', '.join(DTYPES)}.",
                "Save the adapter in float32, float16 or bfloat16.",
            )
        if info.start == info.end:
            raise AdapterError(
                f"{header.path}: tensor {name} is empty.", "Gather sharded weights before saving the adapter."
            )
    with header.path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {
        name: np.frombuffer(content, DTYPES[info.dtype], math.prod(info.shape), info.start).reshape(info.shape)
        for name, info in wanted.items()
    }


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file and return its SHA-256."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, array in ordered:
        entries[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    digest = hashlib.sha256()
    parts: list[bytes | memoryview] = [encode_header(entries), *(raw_bytes(array) for _, array in ordered)]
    with path.open("wb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def encode_header(entries: Mapping[str, Any], align: int = 8) -> bytes:
    """Return the length and JSON that open a safetensors file, padded so that the data starts at a multiple."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % align)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def raw_bytes(array: Array) -> memoryview:
    """Return the bytes of an array, copied only if it is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def all_finite(array: Array) -> bool:
    """Tell whether a floating array is free of NaN and infinity: those have every bit of the exponent set."""
    exponent = _EXPONENT[array.dtype]
    flat = array.reshape(-1).view(exponent.dtype)
    return all(
        int((flat[start : start + _CHUNK] & exponent).max()) != exponent for start in range(0, flat.size, _CHUNK)
    )


def _regular_size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise AdapterError(f"{path}: is not a regular file.", "Give a folder that holds the file itself.")
    return status.st_size


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    # A tensor takes at least 50 characters, among them one brace, two brackets and ten quotes. Anything denser is not
    # a header, and would take many times its size in memory once parsed.
    if (text.count(b"{") + text.count(b"[")) * 16 > len(text) + 64 or text.count(b'"') * 4 > len(text) + 64:
        raise AdapterError(f"{path}: its header is not a list of tensors.", _REPLACE)
    try:
        entries = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise AdapterError(f"{path}: its header is not valid JSON ({problem}).", _REPLACE) from problem
    if not isinstance(entries, dict):
        raise AdapterError(f"{path}: its header is not a JSON object.", _REPLACE)
    return entries


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is there twice")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _metadata(path: Path, entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise AdapterError(f"{path}: its header's __metadata__ does not map strings to strings.", _REPLACE)
    try:
        "".join([*entry, *entry.values()]).encode()
    except UnicodeEncodeError as problem:
        raise AdapterError(
            f"{path}: its header's __metadata__ is no valid text ({problem.reason}).", _REPLACE
        ) from problem
    return entry


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    def refuse(reason: str) -> AdapterError:
        return AdapterError(f"{path}: tensor {name} {reason}.", _REPLACE)

    if not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
        raise AdapterError(f"{path}: a tensor has the unusable name {name!r:.80}.", _REPLACE)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise refuse(f"has the unknown dtype {dtype!r:.40}")
    if not _is_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise refuse(f"has the impossible shape {shape!r:.80}")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"has the impossible offsets {offsets!r:.80}")
    bits = math.prod(shape) * _BITS[dtype]
    if bits != (offsets[1] - offsets[0]) * 8:
        raise refuse(f"has {offsets[1] - offsets[0]:,} bytes, which do not make {dtype} of shape {shape!r:.80}")
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_layout(path: Path, tensors: dict[str, TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for name, info in tensors.items():
        if info.start != position:
            kind = "overlaps the one before it" if info.start < position else "leaves a gap before it"
            raise AdapterError(f"{path}: tensor {name} {kind}.", _REPLACE)
        position = info.end
    if position != size:
        raise AdapterError(f"{path}: its tensors end at byte {position:,}, the file at {size:,}.", _REPLACE)
