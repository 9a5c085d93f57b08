"""Merge a mix into a base model, shard by shard, in float32, cast once."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import AdapterError
from rsoup.files import write_json, write_text
from rsoup.mixing.base import BaseModel, read_base
from rsoup.mixing.changes import Addition, Change, plan_changes
from rsoup.mixing.compatibility import base_of, compare_bases
from rsoup.mixing.output import check_output, output_folder
from rsoup.mixing.provenance import header_metadata, model_card, provenance
from rsoup.mixing.shards import Rounding, write_shard
from rsoup.mixing.soup import Soup


@dataclass(frozen=True)
class Merge:
    """A merged model: how many tensors changed, and the largest error of casting them back, with its place.

    ``lost`` is the share of the update, in norm, that the cast to the base's dtype rounded away; ``warnings`` says
    whether the base is the one that the adapters were trained on.
    """

    folder: Path
    changed: int
    copied: int
    rounding: float
    rounding_at: str | None
    lost: float
    warnings: tuple[str, ...] = ()


def merge(soup: Soup, base: str | Path, folder: str | Path, *, overwrite: bool = False) -> Merge:
    """Write the base model with a mix folded in: W + scale B A, added in float32 and cast once to W's dtype.

    Tensors without an update are copied as bytes, with the index, configuration, tokenizer and templates. Memory
    stays at a few chunks, whatever the size of the model. Raise ModelError if the base is quantised, does not fit the
    adapter, or ties embeddings that the adapter trains.
    """
    folder = Path(folder)
    model = read_base(base)
    inputs = [model.folder, *(parent.path for parent in soup.parents)]
    check_output(folder, inputs, overwrite=overwrite)
    changes = plan_changes(soup, model)
    _check_space(folder, model)
    warnings = compare_bases(soup.parents, model, str(base))
    with output_folder(folder, inputs, overwrite=overwrite) as partial:
        roundings: list[Rounding] = []
        for shard in model.shards:
            roundings += write_shard(shard, partial / shard.path.name, changes, header_metadata(soup))
        for path in model.companions():
            shutil.copyfile(path, partial / path.name)
        write_text(partial / "README.md", model_card(soup, folder.name, merged_into=_base_name(soup, model)))
        write_json(partial / PROVENANCE_FILE, _provenance(soup, folder.name, model))
    return _report(folder, model, changes, roundings, warnings)


def _check_space(folder: Path, model: BaseModel) -> None:
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < model.size:
        raise AdapterError(
            f"{folder}: needs {model.size:,} bytes, and {existing} has {free:,} free.",
            "Free space, or give another -o.",
        )


def _base_name(soup: Soup, model: BaseModel) -> str:
    return base_of(soup.parents[0])[0] or model.folder.resolve().name


def _provenance(soup: Soup, name: str, model: BaseModel) -> dict[str, Any]:
    return {**provenance(soup, name), "kind": "merged", "base_path": str(model.folder)}


def _report(
    folder: Path, model: BaseModel, changes: Mapping[str, Change], roundings: list[Rounding], warnings: list[str]
) -> Merge:
    worst = max(roundings, key=lambda found: found.largest, default=None)
    update = math.fsum(change.squared_norm for change in changes.values() if isinstance(change, Addition))
    errors = math.fsum(found.squared for found in roundings)
    return Merge(
        folder=folder,
        changed=len(changes),
        copied=len(model.where) - len(changes),
        rounding=worst.largest if worst else 0.0,
        rounding_at=worst.tensor if worst and worst.largest else None,
        lost=math.sqrt(errors / update) if update else 0.0,
        warnings=tuple(warnings),
    )
