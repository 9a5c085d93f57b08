"""The checkpoints along a training, as adapters."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.adapters.config import CONFIG_FILE
from rsoup.adapters.reading import PROVENANCE_FILE, WEIGHTS_FILE
from rsoup.adapters.tensorfile import map_tensors, read_header, write_tensors
from rsoup.errors import AdapterError

STEP = re.compile(r"(?:^|[^0-9])(\d+)$")
FACTOR = "factor/"
"""What the tensors of the adapter begin with in a checkpoint of rsoup's own trainings."""


@dataclass(frozen=True)
class Checkpoint:
    """An adapter as it was after some steps of its training."""

    step: int
    adapter: Adapter


def read_trajectory(folder: str | Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder by their steps.

    They are adapter folders whose names end in their step (checkpoint-500), as trainers based on PEFT leave them, or
    the step-*.safetensors of a training of rsoup's that is not finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AdapterError(f"{folder}: there is no such folder of checkpoints.", "Check the path.")
    found = dict(_steps(folder))
    if not found:
        raise AdapterError(
            f"{folder}: holds no checkpoint.",
            "Give a folder with adapter folders whose names end in their step, such as checkpoint-500.",
        )
    return [Checkpoint(step, _read(folder, step, path)) for step, path in sorted(found.items())]


def read_after(adapter: Adapter, step: int) -> Adapter:
    """Return an adapter of a run as it was after some steps of its training, called NAME@STEP."""
    place = adapter.path.resolve() if adapter.path is not None else Path(adapter.name)
    folder = place.parents[1] / "trajectory" / place.name / f"step-{step:06d}" if len(place.parents) > 1 else place
    if adapter.path is None or not (folder / CONFIG_FILE).is_file():
        raise AdapterError(
            f"{folder}: is not there, {adapter.name} as it was after {step} steps.",
            f"Train it with training.save_every: {step}; if it is trained, remove its folder first.",
        )
    return replace(mixing.read(folder), name=f"{adapter.name}@{step}")


def _steps(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.iterdir()):
        match = STEP.search(path.stem if path.suffix == ".safetensors" else path.name)
        if match and (path.suffix == ".safetensors" or (path / CONFIG_FILE).is_file()):
            yield int(match[1]), path


def _read(folder: Path, step: int, path: Path) -> Adapter:
    name = f"{folder.resolve().name}@{step}"
    if path.is_dir():
        return replace(mixing.read(path), name=name)
    return replace(_read_state(folder, path), name=name, path=path)


def _read_state(folder: Path, path: Path) -> Adapter:
    """Read the adapter in a checkpoint of an unfinished training; its configuration is that of the run's start."""
    start = folder.parent.parent / "adapters" / "init"
    if not (start / CONFIG_FILE).is_file():
        raise AdapterError(
            f"{path}: the adapter it belongs to has no configuration: {start} is missing.",
            "Keep checkpoints where their training left them, in checkpoints/NAME of the run.",
        )
    tensors = map_tensors(read_header(path))
    factors = {name.removeprefix(FACTOR): array for name, array in tensors.items() if name.startswith(FACTOR)}
    with tempfile.TemporaryDirectory() as temporary:
        adapter = Path(temporary)
        (adapter / CONFIG_FILE).write_bytes((start / CONFIG_FILE).read_bytes())
        write_tensors(adapter / WEIGHTS_FILE, factors, {"format": "pt"})
        read = mixing.read(adapter)
    provenance = mixing.read(start).provenance if (start / PROVENANCE_FILE).is_file() else None
    return replace(read, provenance=provenance)
