"""Open the rows of a data set: JSONL, CSV, Parquet, a folder, or the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rsoup.errors import DataError, first_line
from rsoup.hub import hub_trouble
from rsoup.tasks.gym import SCHEME, gym_rows

if TYPE_CHECKING:
    from rsoup.tasks import Part

SAVED = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` leaves in a folder of several splits, and of one."""

EXTRA = "cells without a column"
"""The column of a CSV file's row under which cells beyond the header's are kept."""

_LONGEST = 1 << 30  # characters of a cell: a long post is told from a broken file by what follows it


def open_rows(source: str, part: Part) -> Iterable[Any]:
    """Return the rows of a split of a file, a folder, a task of reasoning-gym or a hub id."""
    if source.startswith(SCHEME):
        return gym_rows(source)
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in READERS:
            raise DataError(
                f"{source}: a {path.suffix or 'nameless'} file is not data that rsoup reads.",
                f"Give one of: {', '.join(READERS)}, a folder saved by datasets, or a hub id.",
            )
        return READERS[path.suffix](path)
    if path.is_dir():
        return _read_saved(path, part) if any((path / name).is_file() for name in SAVED) else _read_folder(path, part)
    if path.exists() or path.suffix in READERS or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise DataError(f"{source}: there is no such data file.", "Check the path (task.data, task.eval_data).")
    return _read_hub(source, part)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """Open a text file, with or without a byte order mark."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}).", "Check the rights of the file.") from problem
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: is not UTF-8 text ({problem.reason}).", "Save it as UTF-8.") from problem


def _read_jsonl(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as problem:
                    raise DataError(
                        f"{path}, line {number}: is not JSON ({problem}).", "Write one JSON object per line."
                    ) from problem


def _read_csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(_LONGEST)
    with _text(path) as file:
        rows = csv.DictReader(file, restkey=EXTRA)
        try:
            yield from rows
        except csv.Error as problem:
            raise DataError(f"{path}, line {rows.line_num}: is not CSV ({problem}).", "Mend the line.") from problem


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException as problem:
        raise DataError(f"{path}: is not a Parquet file ({problem}).", "Write it again.") from problem


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_saved(path: Path, part: Part) -> Iterable[Any]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as problem:
        raise DataError(
            f"{path}: is not a folder saved by datasets: {first_line(problem)}.", "Save it with Dataset.save_to_disk."
        ) from problem
    return _split(saved, part, str(path)) if isinstance(saved, DatasetDict) else saved


def _read_folder(path: Path, part: Part) -> Iterable[Any]:
    """Read a folder of data files laid out as on the hub, without a copy in the cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return _split(load_dataset(str(path), data_dir=part.folder, streaming=True), part, str(path))
    except (OSError, ValueError, RuntimeError, DatasetsError) as problem:
        raise DataError(
            f"{path}: the folder holds no data that can be read: {first_line(problem)}.",
            "Give a folder saved by datasets, or one of JSONL, CSV or Parquet files.",
        ) from problem


def is_remote(source: str) -> bool:
    """Tell whether rows come from the hub, and so stay as they are while a command runs."""
    return not Path(source).expanduser().exists()


def _read_hub(source: str, part: Part) -> Iterator[Any]:
    """Read a data set of the hub; where only some rows are asked for, no more than these are fetched."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        yield from _split(load_dataset(source, data_dir=part.folder, streaming=part.limit is not None), part, source)
    except (OSError, ValueError, RuntimeError, DatasetsError) as problem:
        told = hub_trouble(problem, source, "data set") or (
            f"{source}: the data set cannot be loaded: {first_line(problem)}.",
            "Check the path or hub id; a data set that is a script has to be converted to Parquet first.",
        )
        raise DataError(*told) from problem


def _split(splits: Any, part: Part, source: str) -> Iterable[Any]:
    for name in part.names:
        if name in splits:
            rows: Iterable[Any] = splits[name]
            return rows
    raise DataError(
        f"{source}: has no split {part.names[0]!r}, only {', '.join(splits)}.",
        "Give files for task.data and task.eval_data.",
    )
