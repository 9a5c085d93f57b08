"""Files as they travel between machines: paths within a folder and their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath

from rsoup.files import whole_file, whole_folder

Files = dict[str, bytes]


def pack(root: Path, *parts: str) -> Files:
    """Return the files below some parts of a folder; those being written are not there yet."""
    return {str(path.relative_to(root)): path.read_bytes() for path in _files(root, parts)}


class Changes:
    """What has changed below some parts of a folder from one look to the next."""

    def __init__(self, root: Path, *parts: str) -> None:
        self._root, self._parts = root, parts
        self._seen: dict[Path, tuple[int, int]] = {}

    def look(self) -> Files:
        """Return the files that are new or other than at the last look.

        They are read in the reverse order of their names and come in that order: a checkpoint's metrics after it,
        so that the metrics of no step of it are missing, and are written before it.
        """
        changed: Files = {}
        for path in reversed(list(_files(self._root, self._parts))):
            with suppress(FileNotFoundError):  # an old checkpoint, removed meanwhile
                about = path.stat()
                mark = about.st_size, about.st_mtime_ns
                if self._seen.get(path) != mark:
                    changed[str(path.relative_to(self._root))] = path.read_bytes()
                    self._seen[path] = mark
        return dict(sorted(changed.items()))


def unpack(files: Mapping[str, bytes], root: Path) -> None:
    """Write files below a folder, each whole or not at all, and so the folders of adapters."""
    for folder, own in _grouped(files).items():
        if folder is None:
            for name, content in own.items():
                _write(root / name, content)
            continue
        with whole_folder(root / folder) as partial:
            for name, content in own.items():
                path = partial / PurePath(name).relative_to(folder)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _grouped(files: Mapping[str, bytes]) -> dict[str | None, Files]:
    """Return the files by the folder that is whole with them; None for files by themselves."""
    groups: dict[str | None, Files] = {}
    for name, content in files.items():
        parts = PurePath(name).parts
        depth = {"adapters": 2, "trajectory": 3}.get(parts[0], 0)
        folder = str(PurePath(*parts[:depth])) if depth and len(parts) > depth else None
        groups.setdefault(folder, {})[name] = content
    return groups


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _files(root: Path, parts: Iterable[str]) -> Iterator[Path]:
    for part in parts:
        for path in sorted(_below(root / part)):
            if path.is_file() and not any(name.startswith(".") for name in path.relative_to(root).parts):
                yield path


def _below(folder: Path) -> Iterator[Path]:
    """Return the files below a folder, of which parts may be removed meanwhile."""

    def on_error(problem: OSError) -> None:
        if not isinstance(problem, FileNotFoundError):
            raise problem

    for place, _, names in os.walk(folder, onerror=on_error):
        yield from (Path(place, name) for name in names)
