"""Which models a sweep evaluates: the base, mixes of the experts, and the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import AdapterError, RecipeError
from rsoup.evaluation.layout import Weights, lay_out, name_of, rounded
from rsoup.evaluation.records import AdapterKind, Kind
from rsoup.evaluation.trajectory import Checkpoint
from rsoup.files import sha256_json
from rsoup.mixing.compatibility import check_compatible
from rsoup.recipe import EvaluationSection

BASE = "base"
"""The id of the point without adapter, and the name of the base as an ingredient."""
MANY = 200
"""Mixes beyond which other ways to choose them are worth a word."""


@dataclass(frozen=True, eq=False)
class PlannedPoint:
    """A model to evaluate: adapters mixed by ``weights`` and the base by ``base_weight``; the base if there are none.

    A ``kind`` ensemble or mod mixes what they predict instead.
    """

    id: str
    kind: Kind
    weights: dict[str, float]
    lam: float | None = None
    base_weight: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, float]:
        """The weights that are not 0."""
        return {name: weight for name, weight in self.weights.items() if weight}


@dataclass(frozen=True)
class Plan:
    """The adapters of a sweep by name, its points, and what could not be verified of the adapters.

    ``ingredients`` are the names that mixes are made of, the base's among them if it takes part.
    """

    adapters: dict[str, Adapter]
    ingredients: tuple[str, ...]
    points: tuple[PlannedPoint, ...]
    settings: EvaluationSection
    warnings: tuple[str, ...] = ()
    allow_different_starts: bool = False

    def identity(self, point: PlannedPoint) -> str:
        """Return a hash of what decides a point's model, beside the base."""
        parts = sorted([str(self.adapters[name].identity), round(weight, 12)] for name, weight in point.used.items())
        mixed = len(parts) > 1 or bool(parts and point.base_weight)
        how = self.settings.method if point.kind not in ("ensemble", "mod") else point.kind
        return sha256_json([how if mixed else None, parts])

    def mixed(self, point: PlannedPoint) -> mixing.Soup | None:
        """Return the mix of a point, or None for the base."""
        if not point.used:
            return None
        return mixing.mix(
            [self.adapters[name] for name in point.used],
            list(point.used.values()),
            method=self.settings.method,
            base_weight=point.base_weight,
            allow_extrapolation=True,  # the layout has checked the weights
            allow_different_starts=self.allow_different_starts,
        )

    def point_at(self, weights: Weights) -> PlannedPoint:
        """Return the point of these weights of the ingredients."""
        shares = dict(zip(self.ingredients, weights, strict=True))
        return _mix_point(shares, kinds_of(self.adapters), self.settings)

    def position(self, point: PlannedPoint) -> Weights | None:
        """Return where a point lies among the ingredients, None for one that is not a mix of them."""
        if point.kind in ("ensemble", "mod", "checkpoint") or not set(point.used) <= set(self.ingredients):
            return None
        if not point.used and BASE not in self.ingredients:
            return None
        share = point.base_weight if point.used else 1.0
        return tuple(share if name == BASE else point.weights.get(name, 0.0) for name in self.ingredients)


def kind_of(adapter: Adapter) -> AdapterKind:
    """Return what an adapter is; one made elsewhere, or of a kind not known here, is an expert."""
    kind = adapter.provenance.kind if adapter.provenance else None
    known: dict[str | None, AdapterKind] = {"init": "init", "morl": "morl", "soup": "soup"}
    return known.get(kind, "expert")


def plan_sweep(
    sources: Sequence[str | Path],
    settings: EvaluationSection,
    *,
    seed: int = 0,
    trajectory: Sequence[Checkpoint] = (),
    allow_different_starts: bool = False,
) -> Plan:
    """Read adapters (folders, hub ids, or NAME=FOLDER) and lay out a sweep: mixes, baselines, checkpoints."""
    adapters = _read(sources)
    kinds = kinds_of(adapters)
    ingredients = ingredients_of(kinds, settings)
    if settings.refine and len(ingredients) < 2:
        raise RecipeError("evaluation.refine chooses mixes, and there is one ingredient.", "Give two adapters or more.")
    mixable = [adapters[name] for name in ingredients if name != BASE]
    warnings = check_compatible(mixable, settings.method, allow_different_starts=allow_different_starts)
    if settings.mix_morl and "morl" not in kinds.values():
        warnings.append("There is no baseline to mix (--mix-morl): rsoup morl trains one.")
    points = lay_points(kinds, settings, seed)
    mixes = len(lay_out(ingredients, settings, seed))
    if mixes > MANY and not settings.at:
        warnings.append(f"There are {mixes:,} mixes to measure; --random K or --refine K measures fewer.")
    for checkpoint in trajectory:
        name = checkpoint.adapter.name
        adapters[name] = checkpoint.adapter
        points.append(PlannedPoint(name, "checkpoint", {name: 1.0}, facts={"step": float(checkpoint.step)}))
    return Plan(adapters, ingredients, tuple(points), settings, tuple(warnings), allow_different_starts)


def kinds_of(adapters: Mapping[str, Adapter]) -> dict[str, AdapterKind]:
    """Return what each adapter is."""
    return {name: kind_of(adapter) for name, adapter in adapters.items()}


def ingredients_of(kinds: Mapping[str, AdapterKind], settings: EvaluationSection) -> tuple[str, ...]:
    """Return the names that mixes are made of."""
    mixable = [name for name, kind in kinds.items() if settings.mix_morl or kind != "morl"]
    return (*mixable, BASE) if settings.with_base and mixable else tuple(mixable)


def lay_points(kinds: Mapping[str, AdapterKind], settings: EvaluationSection, seed: int) -> list[PlannedPoint]:
    """Return the points of a sweep over adapters known by name and kind; they need not be there yet."""
    ingredients = ingredients_of(kinds, settings)
    places = lay_out(ingredients, settings, seed) if ingredients else []
    mixes = [_mix_point(dict(zip(ingredients, weights, strict=True)), kinds, settings) for weights in places]
    points = [PlannedPoint(BASE, "base", {}), *(point for point in mixes if point.id != BASE)]
    points += [PlannedPoint(name, "morl", {name: 1.0}) for name in kinds if name not in ingredients]
    return points + [compared for point in mixes for compared in compared_with(point, settings)]


def compared_with(point: PlannedPoint, settings: EvaluationSection) -> list[PlannedPoint]:
    """Return the baselines that mix predictions by the weights of a soup; they have none for negative weights."""
    if point.kind != "soup" or point.base_weight or min(point.weights.values()) < 0 or len(point.used) < 2:
        return []
    return [
        replace(point, id=name_of(rule, list(point.weights.values()), settings.lambdas - 1), kind=rule)
        for rule in settings.compare
    ]


def _read(sources: Sequence[str | Path]) -> dict[str, Adapter]:
    adapters: dict[str, Adapter] = {}
    for source in sources:
        name, equals, folder = str(source).partition("=")
        named = bool(equals) and not Path(source).exists()
        adapter = mixing.read(folder if named else source)
        if named:
            adapter = replace(adapter, name=name)
        if adapter.name in adapters:
            raise AdapterError(
                f"Two adapters are called {adapter.name}.", "Name them: --adapters first=FOLDER second=FOLDER."
            )
        if adapter.name == BASE:
            raise AdapterError(f"{source}: an adapter called {BASE} would be taken for the base.", "Rename the folder.")
        adapters[adapter.name] = adapter
    return adapters


def _mix_point(shares: dict[str, float], own: Mapping[str, AdapterKind], settings: EvaluationSection) -> PlannedPoint:
    """Return the point of a mix; an ingredient alone goes by its own name and kind."""
    weights = {name: weight for name, weight in shares.items() if name != BASE}
    share = dict(zip(shares, rounded(list(shares.values())), strict=True)).get(BASE, 0.0)
    lam = list(shares.values())[1] if len(shares) == 2 else None
    alone = [name for name, weight in shares.items() if weight == 1 and math.fsum(map(abs, shares.values())) == 1]
    if alone == [BASE]:
        return PlannedPoint(BASE, "base", {}, lam)
    if alone:
        kinds: dict[AdapterKind, Kind] = {"morl": "morl", "init": "base"}
        return PlannedPoint(alone[0], kinds.get(own[alone[0]], "expert"), weights, lam)
    name = name_of("soup", list(shares.values()), settings.lambdas - 1)
    return PlannedPoint(name, "soup", weights, lam, share)
