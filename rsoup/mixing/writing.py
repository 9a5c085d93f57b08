"""Write mixes as adapter folders with their provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.adapters import Adapter, read_adapter, write_adapter
from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import RsoupError
from rsoup.files import write_json
from rsoup.mixing.companions import copy_companions
from rsoup.mixing.output import GRID_FILE, output_folder
from rsoup.mixing.provenance import fingerprint, header_metadata, model_card, provenance
from rsoup.mixing.soup import Soup, Source, mix, read_all
from rsoup.mixing.weights import lattice, point_name


def write(soup: Soup, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a mix into a new folder, whole or not at all, and return its path.

    A folder that already holds this very mix is left as it is. ``overwrite`` replaces another adapter there.
    """
    folder = Path(folder)
    if _holds(folder, soup):
        return folder
    with output_folder(folder, [parent.path for parent in soup.parents], overwrite=overwrite) as partial:
        _write_into(partial, soup, folder.name)
    return folder


def grid(adapters: Sequence[Source], steps: int, **settings: Any) -> Iterator[tuple[str, Soup]]:
    """Yield a name and the mix for every point of the simplex lattice; ``settings`` are those of ``mix``."""
    points = lattice(len(adapters), steps)
    parents = read_all(adapters)
    for weights in points:
        yield point_name(weights, steps), mix(parents, weights, **settings)


@dataclass(frozen=True)
class Grid:
    """A written grid: the folder of each point; what its mixes say and cut off, as in ``Soup``, at its worst."""

    folder: Path
    points: tuple[Path, ...]
    warnings: tuple[str, ...]
    discarded: Mapping[str, float]


def write_grid(
    adapters: Sequence[Source], steps: int, folder: str | Path, *, overwrite: bool = False, **settings: Any
) -> Grid:
    """Write every point of the lattice into ``folder`` with a grid.json that lists them, all or nothing.

    A folder that already holds this very grid is left as it is.
    """
    folder = Path(folder)
    parents = read_all(adapters)
    inputs = [parent.path for parent in parents]
    held = _held_grid(folder, parents, steps, settings)
    if held:
        return held
    found = _Found()
    points: list[dict[str, Any]] = []
    with output_folder(folder, inputs, overwrite=overwrite) as partial:
        for name, soup in grid(parents, steps, **settings):
            (partial / name).mkdir()
            _write_into(partial / name, soup, name)
            points.append({"path": name, "weights": dict(zip(_names(soup), soup.weights, strict=True))})
            found.add(name, soup)
        write_json(partial / GRID_FILE, {"schema": 1, "steps": steps, "points": points})
    return found.grid(folder)


class _Found:
    """What the mixes of a grid say, gathered point by point."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._warnings: list[str] = []
        self._discarded: dict[str, float] = {}

    def add(self, name: str, soup: Soup) -> None:
        self._names.append(name)
        self._warnings += soup.warnings
        for module, share in soup.discarded.items():
            self._discarded[module] = max(share, self._discarded.get(module, 0.0))

    def grid(self, folder: Path) -> Grid:
        points = tuple(folder / name for name in self._names)
        return Grid(folder, points, tuple(dict.fromkeys(self._warnings)), self._discarded)


def _held_grid(folder: Path, parents: Sequence[Adapter], steps: int, settings: Mapping[str, Any]) -> Grid | None:
    """Return the grid that a folder holds, if it is exactly this one, whole."""
    if not (folder / GRID_FILE).is_file():
        return None
    found = _Found()
    for name, soup in grid(parents, steps, **settings):
        if not _holds(folder / name, soup):
            return None
        found.add(name, soup)
    held = found.grid(folder)
    return held if len(list(folder.iterdir())) == len(held.points) + 1 else None


def _write_into(folder: Path, soup: Soup, name: str) -> None:
    write_adapter(
        soup.adapter,
        folder,
        provenance=provenance(soup, name),
        metadata=header_metadata(soup),
        card=model_card(soup, name),
    )
    copy_companions(soup.companions, folder)


def _holds(folder: Path, soup: Soup) -> bool:
    """Tell whether a folder holds exactly this mix, whole."""
    if not (folder / PROVENANCE_FILE).is_file() or any(parent.sha256 is None for parent in soup.parents):
        return False
    try:
        found = read_adapter(folder)
        told = found.provenance.raw if found.provenance is not None else {}
        beside = {name: own for parent in soup.parents for name, own in parent.companions.items()}
        same = told.get("fingerprint") == fingerprint(soup)
        same = same and found.companions == {name: beside.get(name) for name in soup.companions}
        return same and told.get("sha256") == found.sha256 and told.get("config_sha256") == found.config.sha256
    except (RsoupError, OSError):
        return False


def _names(soup: Soup) -> list[str]:
    """Return the parents' names, numbered where two are the same."""
    names = [parent.name for parent in soup.parents]
    return [name if names.count(name) == 1 else f"{name}#{index}" for index, name in enumerate(names, 1)]
