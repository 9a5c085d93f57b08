"""Merge a mix into a base model, shard by shard, in float32, cast once."""

from __future__ import annotations

import filecmp
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.adapters.tensorfile import Header
from rsoup.errors import AdapterError, RsoupError
from rsoup.files import read_json, write_json, write_text
from rsoup.mixing.base import INDEX_FILE, SINGLE_FILE, BaseModel, read_base
from rsoup.mixing.changes import Addition, Change, Plan, plan_changes
from rsoup.mixing.companions import copy_companions, replaced
from rsoup.mixing.compatibility import base_of, compare_bases
from rsoup.mixing.output import check_output, output_folder
from rsoup.mixing.provenance import fingerprint, header_metadata, model_card, provenance
from rsoup.mixing.shards import Rounding, write_shard
from rsoup.mixing.soup import Soup
from rsoup.mixing.tying import HEAD_FILE, without_tying

FACTS = "merge"
"""Where the provenance of a merged model keeps what there is to say about the merge."""
STAMPS = ("base_files", "files")
"""Where it keeps what tells the files apart that the merge read and wrote."""


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
    stays at a few chunks, whatever the size of the model. A folder that holds this very model already, by the sizes
    and times of its files and the base's, is left as it is; ``overwrite`` makes it again. Embeddings that the base ties
    and the adapter trains at one end are untied. Raise ModelError if the base is quantised or does not fit the adapter.
    """
    folder = Path(folder)
    model = read_base(base)
    warnings = compare_bases(soup.parents, model, str(base))
    held = None if overwrite else _held(folder, soup, model)
    if held:
        return _merged(folder, held, warnings)
    inputs = [model.folder, *(parent.path for parent in soup.parents)]
    check_output(folder, inputs, overwrite=overwrite)
    plan = plan_changes(soup, model)
    files = _files(model, plan)
    _check_space(folder, files)
    with output_folder(folder, inputs, overwrite=overwrite) as partial:
        roundings: list[Rounding] = []
        for name, shard in files.items():
            roundings += write_shard(shard, partial / name, plan.changes, header_metadata(soup))
        _write_index(partial, model, files)
        copy_companions(_companions(soup, model), partial)
        if plan.untied:
            write_text(partial / "config.json", json.dumps(without_tying(dict(model.config)), indent=2) + "\n")
        write_text(partial / "README.md", model_card(soup, folder.name, merged_into=_base_name(soup, model)))
        told = [*plan.warnings, *_new_companions(soup, model)]
        facts = _facts(model, plan.changes, roundings) | {"warnings": told}
        write_json(partial / PROVENANCE_FILE, _provenance(soup, folder.name, model, partial) | {FACTS: facts})
    return _merged(folder, facts, warnings)


def _companions(soup: Soup, model: BaseModel) -> dict[str, Path]:
    """Return the files beside the weights: the base's, with the tokenizer and templates that the adapters share."""
    own = {path.relative_to(model.folder).as_posix(): path for path in model.companions()}
    gone = replaced(soup.companions, own)
    return {name: path for name, path in own.items() if name not in gone} | dict(soup.companions)


def _new_companions(soup: Soup, model: BaseModel) -> list[str]:
    """Tell which of the adapters' files take the place of different ones of the base."""
    changed = [
        name
        for name, path in soup.companions.items()
        if not (model.folder / name).is_file() or not filecmp.cmp(path, model.folder / name, shallow=False)
    ]
    return [f"the merged model has the adapters' {', '.join(changed)} in the place of the base's."] if changed else []


def _merged(folder: Path, facts: Mapping[str, Any], warnings: Iterable[str]) -> Merge:
    own = dict(facts)
    return Merge(folder=folder, warnings=(*warnings, *own.pop("warnings", ())), **own)


def _files(model: BaseModel, plan: Plan) -> dict[str, Header]:
    """Return what each file of the merged model is made from: the base's shards, and untied embeddings after them.

    Their file is a part of a shard, cut out by its offsets. Where one file becomes two, neither may be called what
    loaders take for the whole model.
    """
    files = {shard.path.name: shard for shard in model.shards}
    if plan.untied and plan.untied.new:
        source = model.where[plan.untied.source]
        info = source.tensors[plan.untied.source]
        part = Header(source.path, {plan.untied.new: info}, source.metadata, info.start)
        files = {"model-body.safetensors" if name == SINGLE_FILE else name: shard for name, shard in files.items()}
        files[HEAD_FILE] = part
    return files


def _write_index(folder: Path, model: BaseModel, files: Mapping[str, Header]) -> None:
    """Write the index that tells each tensor's file: the base's own, if that is right."""
    places = {tensor: name for name, shard in files.items() for tensor in shard.tensors}
    if model.index is not None and model.index.get("weight_map") == places:
        shutil.copyfile(model.folder / INDEX_FILE, folder / INDEX_FILE)
    elif model.index is not None or len(files) > 1:
        sizes = [info.end - info.start for shard in files.values() for info in shard.tensors.values()]
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / INDEX_FILE, index)


def _held(folder: Path, soup: Soup, model: BaseModel) -> dict[str, Any] | None:
    """Return the facts of the merge that a folder holds, if it is this one and whole."""
    if not (folder / PROVENANCE_FILE).is_file() or any(parent.sha256 is None for parent in soup.parents):
        return None
    try:
        found = read_json(folder / PROVENANCE_FILE, schema=1, what="a model's provenance", error=RsoupError)
        same = found.get("base_path") == str(model.folder)
        same = same and {key: found.get(key) for key in STAMPS} == _stamps(model, folder, found.get(STAMPS[1]) or ())
    except (RsoupError, OSError):
        return None
    facts: dict[str, Any] | None = found.get(FACTS) if same and found.get("fingerprint") == fingerprint(soup) else None
    whole = isinstance(facts, dict) and {*facts, "folder"} == {own.name for own in fields(Merge)}
    return facts if whole else None


def _stamps(model: BaseModel, folder: Path, written: Iterable[str]) -> dict[str, dict[str, list[int]]]:
    """Return what tells the files apart that a merge reads, and those that it wrote: size, time of change, inode."""
    read = [path.relative_to(model.folder) for path in (*(shard.path for shard in model.shards), *model.companions())]
    stamped: dict[str, dict[str, list[int]]] = {}
    for key, place, names in zip(STAMPS, (model.folder, folder), (map(str, read), written), strict=True):
        stats = {name: (place / name).stat() for name in names}
        stamped[key] = {name: [own.st_size, own.st_mtime_ns, own.st_ino] for name, own in stats.items()}
    return stamped


def _check_space(folder: Path, files: Mapping[str, Header]) -> None:
    size = sum(info.end - info.start for shard in files.values() for info in shard.tensors.values())
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise AdapterError(
            f"{folder}: needs {size:,} bytes, and {existing} has {free:,} free.", "Free space, or give another -o."
        )


def _base_name(soup: Soup, model: BaseModel) -> str:
    return base_of(soup.parents[0])[0] or model.folder.resolve().name


def _provenance(soup: Soup, name: str, model: BaseModel, folder: Path) -> dict[str, Any]:
    own = {"kind": "merged", "base_path": str(model.folder)}
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {**provenance(soup, name), **own, **_stamps(model, folder, written)}


def _facts(model: BaseModel, changes: Mapping[str, Change], roundings: list[Rounding]) -> dict[str, Any]:
    """Return what there is to say about a merge, as the fields of ``Merge``."""
    worst = max(roundings, key=lambda found: found.largest, default=None)
    update = math.fsum(change.squared_norm for change in changes.values() if isinstance(change, Addition))
    errors = math.fsum(found.squared for found in roundings)
    return {
        "changed": len(changes),
        "copied": len(model.where.keys() - changes.keys()),
        "rounding": worst.largest if worst else 0.0,
        "rounding_at": worst.tensor if worst and worst.largest else None,
        "lost": math.sqrt(errors / update) if update else 0.0,
    }
