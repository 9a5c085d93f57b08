"""Write mixed models shard by shard, whole or not at all."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.adapters.tensorfile import encode_header
from rsoup.errors import AdapterError
from rsoup.files import write_json, write_text
from rsoup.mixing.base import INDEX_FILE
from rsoup.mixing.checkpoints.alignment import Target
from rsoup.mixing.checkpoints.mixture import Mixture, Reader, Source, mix_models, read_models
from rsoup.mixing.checkpoints.models import MODEL_FILE
from rsoup.mixing.checkpoints.origin import header_metadata, is_held, model_card, provenance
from rsoup.mixing.checkpoints.reading import chunk_count
from rsoup.mixing.chunks import PAGE, THREADS, Sink
from rsoup.mixing.companions import copy_companions
from rsoup.mixing.output import GRID_FILE, check_output, output_folder
from rsoup.mixing.parallel import parallel
from rsoup.mixing.weights import lattice, point_name

_COPY_BYTES = 4 << 20
_CHUNKS_AT_A_TIME = 16
_SEPARATELY = ("dtype", "torch_dtype")
_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_model(mixture: Mixture, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a mixed model into a new folder, whole or not at all, and return its path.

    Memory stays at a few chunks per thread and ingredient, whatever the size of the models. A folder that already
    holds this very mix is left as it is. ``overwrite`` replaces another model there.
    """
    folder = Path(folder)
    if is_held(folder, mixture):
        return folder
    inputs = [model.path for model in mixture.ingredients]
    check_output(folder, inputs, overwrite=overwrite)
    _check_space(folder, mixture.size)
    with output_folder(folder, inputs, overwrite=overwrite) as partial:
        _write_into(partial, mixture, folder.name)
    return folder


@dataclass(frozen=True)
class ModelGrid:
    """A written grid: the folder of each point, and what there is to know about the models."""

    folder: Path
    points: tuple[Path, ...]
    warnings: tuple[str, ...]


def write_model_grid(
    models: Sequence[Source], steps: int, folder: str | Path, *, overwrite: bool = False, **settings: Any
) -> ModelGrid:
    """Write every point of the lattice into ``folder`` with a grid.json that lists them, all or nothing.

    ``settings`` are those of ``mix_models``. A folder that already holds this very grid is left as it is.
    """
    folder, read = Path(folder), read_models(models)
    mixtures = {point_name(w, steps): mix_models(read, w, **settings) for w in lattice(len(read), steps)}
    first = next(iter(mixtures.values()))
    grid = ModelGrid(folder, tuple(folder / name for name in mixtures), first.warnings)
    if (folder / GRID_FILE).is_file() and all(is_held(folder / name, own) for name, own in mixtures.items()):
        return grid
    inputs = [model.path for model in first.ingredients]
    check_output(folder, inputs, overwrite=overwrite)
    _check_space(folder, sum(mixture.size for mixture in mixtures.values()))
    names = [model.name for model in read]
    names = [name if names.count(name) == 1 else f"{name}#{place}" for place, name in enumerate(names, 1)]
    points = []
    with output_folder(folder, inputs, overwrite=overwrite) as partial:
        for name, mixture in mixtures.items():
            (partial / name).mkdir()
            _write_into(partial / name, mixture, name)
            points.append({"path": name, "weights": dict(zip(names, mixture.weights, strict=True))})
        write_json(partial / GRID_FILE, {"schema": 1, "steps": steps, "points": points})
    return grid


def _write_into(folder: Path, mixture: Mixture, name: str) -> None:
    metadata = header_metadata(mixture)
    with Reader(mixture) as reader:
        for shard, targets in mixture.alignment.shards:
            reader.open(targets)
            _write_shard(folder / shard, targets, reader, metadata)
            reader.close()
    copy_companions({k: v for k, v in mixture.models[0].companions().items() if k != PROVENANCE_FILE}, folder)
    _write_index(folder, mixture)
    if (config := _config(mixture)) != mixture.models[0].config:
        write_text(folder / MODEL_FILE, json.dumps(config, indent=2) + "\n")  # some hold Infinity (Mamba's)
    write_text(folder / "README.md", model_card(mixture, name))
    write_json(folder / PROVENANCE_FILE, provenance(mixture, name, folder))


def _write_shard(path: Path, targets: Sequence[Target], reader: Reader, metadata: Mapping[str, str]) -> None:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    position, starts = 0, []
    for target in targets:
        starts.append(position)
        offsets = [position, position + target.size]
        entries[target.name] = {"dtype": target.dtype, "shape": list(target.shape), "data_offsets": offsets}
        position += target.size
    header = encode_header(entries, align=PAGE)
    with path.open("wb") as file:
        sink = Sink(file.fileno())
        sink.reserve(len(header) + position)
        file.write(header)
        file.flush()
        jobs = (job for target, start in zip(targets, starts, strict=True) for job in _jobs(target, reader))
        places = {target.name: len(header) + start for target, start in zip(targets, starts, strict=True)}
        parallel(lambda job: job(sink, places), jobs, at_most=THREADS)


_Job = Callable[[Sink, Mapping[str, int]], None]


def _jobs(target: Target, reader: Reader) -> Iterator[_Job]:
    """Yield the work of a tensor: runs of its chunks, or all of them where it has to be read whole first."""
    if target.copied:
        for start in range(0, target.size, _COPY_BYTES):
            yield _copy(target, reader, start, min(_COPY_BYTES, target.size - start))
        return
    chunks = chunk_count(target.count)
    step = chunks if reader.looks_first else _CHUNKS_AT_A_TIME
    for first in range(0, chunks, max(1, step)):
        yield _mix(target, reader, range(first, min(first + step, chunks)))


def _copy(target: Target, reader: Reader, start: int, size: int) -> _Job:
    def job(sink: Sink, places: Mapping[str, int]) -> None:
        sink.write(places[target.name] + start, reader.raw(target, start, size))

    return job


def _mix(target: Target, reader: Reader, chunks: range) -> _Job:
    def job(sink: Sink, places: Mapping[str, int]) -> None:
        rule = reader.prepare(target)
        for number in chunks:
            start, out = reader.compute(target, rule, number)
            sink.write(places[target.name] + start * out.itemsize, out)

    return job


def _write_index(folder: Path, mixture: Mixture) -> None:
    """Write the index that tells each tensor's shard, if there are several."""
    shards = mixture.alignment.shards
    if len(shards) == 1 and mixture.models[0].base.index is None:
        return
    where = {target.name: shard for shard, targets in shards for target in targets}
    parameters = sum(math.prod(target.shape) for target in mixture.alignment.targets)
    metadata = {"total_parameters": parameters, "total_size": mixture.size}
    write_json(folder / INDEX_FILE, {"metadata": metadata, "weight_map": dict(sorted(where.items()))})


def _config(mixture: Mixture) -> dict[str, Any]:
    """Return the first model's configuration, true of the mix: its dtype, and whether its embeddings are tied."""
    config = copy.deepcopy(dict(mixture.models[0].config))
    for part in (config, config.get("text_config")):
        if not isinstance(part, dict):
            continue
        if mixture.dtype is not None:
            keys = [key for key in _SEPARATELY if key in part] or ([_SEPARATELY[0]] if part is config else [])
            part.update(dict.fromkeys(keys, _DTYPE_NAMES[mixture.dtype]))
        if mixture.models[0].ties and not mixture.alignment.tied:
            part["tie_word_embeddings"] = False
    return config


def _check_space(folder: Path, size: int) -> None:
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise AdapterError(
            f"{folder}: needs {size:,} bytes, and {existing} has {free:,} free.", "Free space, or give another -o."
        )
