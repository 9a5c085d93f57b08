"""What models measured elsewhere are: from the rsoup.json in their folders, or from a CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError, did_you_mean
from rsoup.evaluation.results import Kind
from rsoup.report.inputs.table import read_hints

PROVENANCE = "rsoup.json"
FOLDERS = ("peft", "lora_local_path", "pretrained", "model")
"""What lm-eval calls the folder of a model, an adapter's first."""


@dataclass(frozen=True)
class Origin:
    """What a model is, of which adapters it was mixed, and where these lie."""

    kind: Kind
    weights: Mapping[str, float] = field(default_factory=dict)
    lam: float | None = None
    mu: Mapping[str, float] | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)


def origins_of(arguments: Mapping[str, Mapping[str, str]]) -> dict[str, Origin]:
    """Return the origin of each model whose folder tells it, and of their base; by the models' ids."""
    found = {}
    for own, given in arguments.items():
        folder = next((given[key] for key in FOLDERS if key in given), "")
        origin = _read(folder) if folder else None
        if origin is not None:
            found[own] = origin
    bases = {arguments[own].get("pretrained") for own in found if "peft" in arguments[own]}
    for own, given in arguments.items():
        if own not in found and "peft" not in given and given.get("pretrained") in bases - {None}:
            found[own] = Origin("base")
    return _on_line(found)


def told_origins(path: Path, ids: list[str], objectives: tuple[str, ...]) -> dict[str, Origin]:
    """Return the origins that the rows of a CSV tell of models by their ids."""
    found = {}
    for point in read_hints(path, objectives):
        if point.id not in ids:
            raise ResultsError(f"{point.where}: there is no model {point.id!r}.", did_you_mean(point.id or "", ids))
        known = point.kind != "soup" or point.weights or point.lam is not None
        found[point.id] = Origin(point.kind if known else "model", point.weights, point.lam, point.mu)
    return found


def starts_of(folders: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of the adapter that each one's training began at, by the names of those that tell it."""
    told = {name: _told(folder) for name, folder in folders.items()}
    return {name: own["init_sha256"] for name, own in told.items() if isinstance(own.get("init_sha256"), str)}


def _told(folder: str) -> dict[str, Any]:
    """Return what a folder tells of its own origin; nothing where it tells none."""
    try:
        told: Any = json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _read(folder: str) -> Origin | None:
    told = _told(folder)
    name, kinds = str(told.get("name") or Path(folder).name), {"expert": "expert", "morl": "morl"}
    trained: Any = kinds.get(str(told.get("kind")))
    if trained is not None:
        return Origin(trained, {name: 1.0}, adapters={name: folder})
    parents = told.get("parents")
    if isinstance(parents, list) and all(isinstance(own, dict) and _is_weight(own.get("weight")) for own in parents):
        weights = {str(own.get("name")): float(own["weight"]) for own in parents}
        return Origin("soup", weights, adapters={str(own.get("name")): str(own.get("path")) for own in parents})
    return None


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _on_line(origins: dict[str, Origin]) -> dict[str, Origin]:
    """Give the models mixed of the same two adapters, and these, their lambda: the weight of the second."""
    mixes = {own: origin for own, origin in origins.items() if origin.kind in ("soup", "expert")}
    names = list(dict.fromkeys(name for origin in mixes.values() if origin.kind == "soup" for name in origin.weights))
    names = list(dict.fromkeys([*names, *(name for origin in mixes.values() for name in origin.weights)]))
    if len(names) != 2:
        return origins
    for own, origin in mixes.items():
        weights = {name: origin.weights.get(name, 0.0) for name in names}
        lam = weights[names[1]] if abs(sum(weights.values()) - 1) < 1e-6 else None
        origins[own] = replace(origin, weights=weights, lam=lam)
    return origins
