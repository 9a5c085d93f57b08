"""What a recipe names on this machine's disk, and how it gets to a machine that has it not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsoup.models.bundled import BUNDLED
from rsoup.recipe import Recipe
from rsoup.resolve import named_paths
from rsoup.rewards.code import neighbours

CHUNK = 64 << 20
"""Bytes that travel at once."""


@dataclass(frozen=True)
class Input:
    """A file or a folder that a recipe names: its absolute path, and of each file in it the size and the time.

    Files that one of Python imports from beside it belong to it.
    """

    path: str
    is_folder: bool
    files: Mapping[str, tuple[int, int]]

    def below(self, folder: Path) -> Path:
        """Return where it lies in a folder that it is sent to."""
        return folder / Path(self.path).name

    def is_here(self) -> bool:
        """Tell whether this machine has the same files at the same place."""
        return bool(self.files) and _listed(Path(self.path)) == dict(self.files)

    def chunks(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files piece by piece, with the name of the file; an empty file has one piece."""
        root = Path(self.path) if self.is_folder else Path(self.path).parent
        for name in self.files:
            with (root / name).open("rb") as file:
                piece = file.read(CHUNK)
                yield name, piece
                while piece := file.read(CHUNK):
                    yield name, piece


def inputs_of(recipe: Recipe) -> dict[str, Input]:
    """Return what a recipe names that lies on this machine's disk, by the recipe's word for it."""
    places = {word: Path(word).expanduser() for word in named_paths(recipe) if word not in BUNDLED}
    return {word: _input(place.resolve()) for word, place in places.items() if place.exists()}


def _input(path: Path) -> Input:
    return Input(str(path), path.is_dir(), _listed(path))


def _listed(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file of a folder, or of a file and its neighbours, under their names there."""
    if path.is_file():
        own = [path, *(neighbours(path) if path.suffix == ".py" else ())]
        files = {str(file.relative_to(path.parent)): file for file in own}
    else:
        files = {str(file.relative_to(path)): file for file in path.rglob("*")}
    listed = {}
    for name, file in sorted(files.items()):
        if file.is_file():
            about = file.stat()
            listed[name] = about.st_size, about.st_mtime_ns
    return listed
