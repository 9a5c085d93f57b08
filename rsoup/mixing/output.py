"""Where a mix may be written: never over its inputs, never over what rsoup or PEFT did not write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rsoup.adapters.config import CONFIG_FILE
from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import AdapterError, reason_of
from rsoup.files import whole_folder

GRID_FILE = "grid.json"
_REPLACEABLE = (PROVENANCE_FILE, CONFIG_FILE, GRID_FILE)


@contextmanager
def output_folder(folder: Path, inputs: Iterable[Path | None], *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` if the block succeeds; raise AdapterError if it must not."""
    check_output(folder, inputs, overwrite=overwrite)
    try:
        with whole_folder(folder) as partial:
            yield partial
    except OSError as problem:
        where = f" at {problem.filename}" if problem.filename else ""
        raise AdapterError(
            f"{folder}: could not be written ({reason_of(problem)}{where}); nothing was left there.",
            "Check the free space and the rights, or give another -o.",
        ) from problem


def check_output(folder: Path, inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    """Raise AdapterError if ``folder`` is an input, is there already, or may not be replaced."""
    place = folder.resolve()
    for source in (path.resolve() for path in inputs if path):
        if place == source or place in source.parents or source in place.parents:
            raise AdapterError(f"{folder}: is, holds or lies in the input {source}.", "Give another -o.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise AdapterError(f"{folder}: is there, and is not a folder.", "Give another -o.")
    if not folder.exists():
        return
    if not overwrite:
        raise AdapterError(f"{folder}: is already there.", "Give another -o, or replace it with --overwrite.")
    if any(folder.iterdir()) and not any((folder / name).is_file() for name in _REPLACEABLE):
        raise AdapterError(f"{folder}: was not written by rsoup; it is not replaced.", "Give another -o, or delete it.")
