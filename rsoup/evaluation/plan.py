"""Which models a sweep evaluates: the base, every mix of the experts on a lattice, and the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import AdapterError
from rsoup.evaluation.results import AdapterKind, Kind
from rsoup.files import sha256_json
from rsoup.mixing.compatibility import check_compatible
from rsoup.mixing.weights import point_name

BASE = "base"
"""The id of the point without adapter."""


@dataclass(frozen=True)
class PlannedPoint:
    """A model to evaluate: a mix of ``adapters`` by ``weights``, or the base if there are none."""

    id: str
    kind: Kind
    weights: dict[str, float]
    lam: float | None = None


@dataclass(frozen=True)
class Plan:
    """The adapters of a sweep by name, its points, and what could not be verified of the adapters."""

    adapters: dict[str, Adapter]
    points: tuple[PlannedPoint, ...]
    method: str
    warnings: tuple[str, ...] = ()
    allow_different_starts: bool = False

    def identity(self, point: PlannedPoint) -> str:
        """Return a hash of what decides the weights of a point's model, beside the base."""
        used = {name: weight for name, weight in point.weights.items() if weight}
        parts = sorted([*self._adapter_identity(name), weight] for name, weight in used.items())
        return sha256_json([self.method if len(used) > 1 else None, parts])

    def _adapter_identity(self, name: str) -> list[str]:
        adapter = self.adapters[name]
        scales = [[module, layer.scale] for module, layer in adapter.layers.items()]
        return [str(adapter.sha256), sha256_json(scales)]

    def mixed(self, point: PlannedPoint) -> mixing.Soup | None:
        """Return the mix of a point, or None for the base."""
        used = {name: weight for name, weight in point.weights.items() if weight}
        if not used:
            return None
        return mixing.mix(
            [self.adapters[name] for name in used],
            list(used.values()),
            method=self.method,
            allow_different_starts=self.allow_different_starts,
        )


def kind_of(adapter: Adapter) -> AdapterKind:
    """Return what an adapter is; one made elsewhere, or of a kind not known here, is an expert."""
    kind = adapter.provenance.kind if adapter.provenance else None
    known: dict[str | None, AdapterKind] = {"init": "init", "morl": "morl", "soup": "soup"}
    return known.get(kind, "expert")


def plan_sweep(
    folders: Sequence[str | Path], lambdas: int, method: str, *, allow_different_starts: bool = False
) -> Plan:
    """Read adapters and lay out a sweep: the lattice between the experts, each baseline (morl) by itself."""
    adapters: dict[str, Adapter] = {}
    for folder in folders:
        adapter = mixing.read(folder)
        if adapter.name in adapters:
            raise AdapterError(f"Two adapters are called {adapter.name}.", "Rename one of the folders.")
        if adapter.name == BASE:
            raise AdapterError(f"{folder}: an adapter called {BASE} would be taken for the base.", "Rename the folder.")
        adapters[adapter.name] = adapter
    ingredients = [name for name, adapter in adapters.items() if kind_of(adapter) != "morl"]
    mixed = [adapters[name] for name in ingredients]
    warnings = check_compatible(mixed, method, allow_different_starts=allow_different_starts)
    points = [PlannedPoint(BASE, "base", {})]
    if len(ingredients) > 1:
        for weights in mixing.lattice(len(ingredients), lambdas - 1):
            points.append(_lattice_point(dict(zip(ingredients, weights, strict=True)), lambdas - 1))
    else:
        points += [PlannedPoint(name, "expert", {name: 1.0}) for name in ingredients]
    points += [PlannedPoint(name, "morl", {name: 1.0}) for name in adapters if name not in ingredients]
    return Plan(adapters, tuple(points), method, tuple(warnings), allow_different_starts)


def _lattice_point(weights: dict[str, float], steps: int) -> PlannedPoint:
    lam = list(weights.values())[1] if len(weights) == 2 else None
    corner = [name for name, weight in weights.items() if weight == 1]
    if corner:
        return PlannedPoint(corner[0], "expert", weights, lam)
    return PlannedPoint(point_name(list(weights.values()), steps), "soup", weights, lam)
