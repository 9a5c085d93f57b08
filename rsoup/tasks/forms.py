"""The forms of data files: JSON, JSON Lines, CSV, TSV and Parquet, also compressed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rsoup.errors import DataError, first_line, reason_of

EXTRA = "cells without a column"
"""The column of a CSV file's row under which cells beyond the header's are kept."""

COMPRESSED = (".gz", ".zst")
KNOWN = ".jsonl, .json, .csv, .tsv (each also with .gz or .zst), .parquet"

_LONGEST = 1 << 30  # characters of a cell: a long post is told from a broken file by what follows it
_TOLD = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')

Reader = Callable[[Path], Iterator[Any]]


def reader_of(path: Path) -> Reader | None:
    """Return what reads a file of that name, None if its name tells no form that is known."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    form = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSED else suffixes[-1] if suffixes else ""
    if form == ".parquet" and suffixes[-1] != form:
        return None  # it is compressed inside
    return READERS.get(form)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """Open a text file, compressed or not, with or without a byte order mark."""
    try:
        with _binary(path) as content, io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: is not UTF-8 text ({problem.reason}).", "Save it as UTF-8.") from problem
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise _broken(path, problem) from problem
    except OSError as problem:
        if problem.errno is None:  # of what decompresses, not of the system
            raise _broken(path, problem) from problem
        raise DataError(f"{path}: cannot be read ({reason_of(problem)}).", "Check the rights of the file.") from problem


def _broken(path: Path, problem: Exception) -> DataError:
    return DataError(
        f"{path}: is not a whole {path.suffix} file ({first_line(problem)}).", "Compress it again, or unpack it."
    )


def _binary(path: Path) -> Any:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)
    if path.suffix.lower() == ".zst":
        import pyarrow

        return io.BufferedReader(_Raw(pyarrow.CompressedInputStream(path.open("rb"), "zstd")))
    return path.open("rb")


class _Raw(io.RawIOBase):
    """A stream of pyarrow as Python's buffered readers take it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _no_json(where: str, problem: Exception, hint: str) -> DataError:
    return DataError(f"{where}: is not JSON ({first_line(problem)}).", hint)


def _read_jsonl(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as problem:
                    if "\0" in line:
                        raise DataError(
                            f"{path}: is not UTF-8 text (zeros are in it).", "Save it as UTF-8."
                        ) from problem
                    where = f"{path}, line {number}"
                    raise _no_json(where, problem, "Write one JSON object per line.") from problem


def _read_json(path: Path) -> Iterator[Any]:
    """Read a list of rows, an object that holds one, or, as many files of that name are, an object per line."""
    with _text(path) as file:
        text = file.read()
    try:
        content = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as problem:
        if "Extra data" not in str(problem):
            raise _no_json(str(path), problem, "Write a list of JSON objects.") from problem
        yield from _read_jsonl(path)
        return
    yield from _rows_of(path, content)


def _rows_of(path: Path, content: Any) -> list[Any]:
    """Return the rows in the content of a JSON file; DataError if it is no list of objects."""
    if isinstance(content, Mapping):
        lists = {key: own for key, own in content.items() if isinstance(own, list)}
        tables = [own for own in lists.values() if own and all(isinstance(row, Mapping) for row in own)]
        if len(tables) != 1 or "messages" in lists or "conversations" in lists:
            return _single(path, content)
        return tables[0]
    if not isinstance(content, list):
        raise DataError(f"{path}: holds {type(content).__name__}, not rows.", "Write a list of JSON objects.")
    return content


def _single(path: Path, content: Mapping[str, Any]) -> list[Any]:
    """Return an object as the only row of its file, unless it holds columns instead of rows."""
    if content and all(isinstance(own, (list, Mapping)) for own in content.values()) and len(content) > 1:
        raise DataError(f"{path}: holds columns or several lists, not rows.", "Write a list of JSON objects.")
    return [content]


def _read_csv(path: Path, delimiter: str | None = None) -> Iterator[Any]:
    """Read rows whose cells are parted by commas, semicolons or tabs, as the header or a line sep=X tells."""
    csv.field_size_limit(_LONGEST)
    with _text(path) as file:
        header = file.readline()
        if told := _TOLD.fullmatch(header):
            delimiter, header = told[1], ""
        lines = _lines(header, file)
        delimiter = delimiter or max(",;\t", key=_QUOTED.sub("", header).count)
        parted = re.findall(re.escape(delimiter) + r"(\s?)", _QUOTED.sub("", header))
        blanks = bool(parted) and all(blank == " " for blank in parted)  # as in: prompt, answer
        rows = csv.DictReader(lines, restkey=EXTRA, delimiter=delimiter, skipinitialspace=blanks)
        try:
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            _check_names(path, rows.fieldnames)
            yield from rows
        except csv.Error as problem:
            raise DataError(f"{path}, line {rows.line_num}: is not CSV ({problem}).", "Mend the line.") from problem


def _lines(first: str, rest: TextIO) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raise DataError if two columns have one name: a row would lose one of them."""
    twice = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: has several columns called {twice!r}.", "Give each a name of its own.")


def _read_tsv(path: Path) -> Iterator[Any]:
    return _read_csv(path, "\t")


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_names(path, file.schema_arrow.names)
        for batch in file.iter_batches():
            yield from batch.to_pylist(maps_as_pydicts="strict")
    except pyarrow.ArrowException as problem:
        raise DataError(f"{path}: is not a Parquet file ({problem}).", "Write it again.") from problem
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({first_line(problem)}).", "Check the file.") from problem


READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
