"""Which models a sweep evaluates: the base, mixes of the experts, and the baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import RecipeError
from rsoup.evaluation.fronts import lay_fronts, trained_on, with_adapters
from rsoup.evaluation.ingredients import (
    BASE,
    Ingredient,
    adapters_in,
    kind_of,
    method_for,
    models_in,
    read_ingredients,
)
from rsoup.evaluation.layout import Weights, lay_out, name_of, rounded
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.records import AdapterKind, Kind
from rsoup.evaluation.trajectory import Checkpoint, read_after
from rsoup.files import sha256_json
from rsoup.mixing.checkpoints import RULES, Mixture, Model, mix_models, read_model
from rsoup.mixing.compatibility import UNSURE_START, made_alike, unknown_starts
from rsoup.recipe import EvaluationSection

MANY = 200
"""Mixes beyond which other ways to choose them are worth a word."""


@dataclass(frozen=True)
class Plan:
    """The adapters or models of a sweep by name, its points, and what could not be verified of them.

    ``ingredients`` are the names that mixes are made of, the base's among them if it takes part. ``base`` is the base
    as a model, where models are mixed. ``fronts`` are further fronts by name, each the ids of its points,
    and ``early`` the adapters among them as they were before their trainings ended.
    """

    adapters: dict[str, Ingredient]
    ingredients: tuple[str, ...]
    points: tuple[PlannedPoint, ...]
    settings: EvaluationSection
    method: str
    warnings: tuple[str, ...] = ()
    allow_different_starts: bool = False
    base: Model | None = None
    fronts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    early: frozenset[str] = frozenset()

    def identity(self, point: PlannedPoint) -> str:
        """Return a hash of what decides a point's model, beside the base."""
        parts = sorted([str(self.adapters[name].identity), round(weight, 12)] for name, weight in point.used.items())
        mixed = len(parts) > 1 or bool(parts and point.base_weight)
        how = self.method if point.kind not in ("ensemble", "mod") else point.kind
        if self.base is None:
            return sha256_json([how if mixed else None, parts])
        dtypes = sorted({info.dtype for shard in self._models[0].base.shards for info in shard.tensors.values()})
        return sha256_json(["models", how if mixed or RULES[self.method].base == "needed" else None, parts, dtypes])

    def mixed(self, point: PlannedPoint) -> mixing.Soup | Mixture | None:
        """Return the mix of a point, or None for the base as it is in memory.

        Of models it is the mix that ``rsoup mix`` writes for all of them, those of weight 0 included.
        """
        if self.base is not None:
            return self._mixed_models(point, self.base)
        if not point.used:
            return None
        adapters = adapters_in(self.adapters)
        return mixing.mix(
            [adapters[name] for name in point.used],
            list(point.used.values()),
            method=self.method,
            base_weight=point.base_weight,
            allow_extrapolation=True,  # the layout has checked the weights
            allow_different_starts=self.allow_different_starts,
        )

    @property
    def _models(self) -> list[Model]:
        return list(models_in(self.adapters).values())

    def _mixed_models(self, point: PlannedPoint, base: Model) -> Mixture | None:
        if not point.used:  # which the base in memory is, unless a mix has been written over it
            return None if self.settings.measures else mix_models([base], [1.0])
        needed = RULES[self.method].base == "needed" or point.base_weight
        return mix_models(
            self._models,
            [point.weights.get(name, 0.0) for name in self.adapters],
            method=self.method,
            base=base if needed else None,
            base_weight=point.base_weight,
            allow_extrapolation=True,
        )

    def point_at(self, weights: Weights) -> PlannedPoint:
        """Return the point of these weights of the ingredients."""
        shares = dict(zip(self.ingredients, weights, strict=True))
        return _mix_point(shares, kinds_of(self.adapters), self.settings)

    def position(self, point: PlannedPoint) -> Weights | None:
        """Return where a point lies among the ingredients, None for one that is not a mix of them."""
        if point.kind in ("ensemble", "mod", "mix", "checkpoint") or not set(point.used) <= set(self.ingredients):
            return None
        if not point.used and BASE not in self.ingredients:
            return None
        share = point.base_weight if point.used else 1.0
        return tuple(share if name == BASE else point.weights.get(name, 0.0) for name in self.ingredients)


def plan_sweep(
    sources: Sequence[str | Path],
    settings: EvaluationSection,
    *,
    seed: int = 0,
    trajectory: Sequence[Checkpoint] = (),
    allow_different_starts: bool = False,
    base: str | None = None,
) -> Plan:
    """Read adapters or models (folders, hub ids, or NAME=FOLDER) and lay out a sweep: mixes, baselines, checkpoints.

    ``base`` is the folder or the hub id of the base, which models are mixed with or compared to.
    """
    adapters = read_ingredients(sources)
    method = method_for(adapters.values(), settings)
    models = models_in(adapters)
    if models and trajectory:
        raise RecipeError("A trajectory holds adapters, and these are whole models.", "Leave --trajectory out.")
    if models and settings.together is True:
        raise RecipeError("evaluation.together: rows mix adapters, and these are whole models.", "Leave it out.")
    kinds = kinds_of(adapters)
    ingredients = ingredients_of(kinds, settings)
    if settings.refine and len(ingredients) < 2:
        raise RecipeError("evaluation.refine chooses mixes, and there is one ingredient.", "Give two adapters or more.")
    root = read_model(base) if models and base is not None else None
    if models:
        warnings = _check_models(list(models.values()), root, method, settings)
    else:
        own = adapters_in(adapters)
        mixable = [own[name] for name in ingredients if name != BASE]
        _, warnings = made_alike(mixable, method, allow_different_starts=allow_different_starts)
    if settings.mix_morl and "morl" not in kinds.values():
        warnings.append("There is no baseline to mix (--mix-morl): rsoup morl trains one.")
    points = lay_points(kinds, settings, seed)
    if root is not None and _is_one_of(root, models):
        points = [point for point in points if point.id != BASE]
    mixes = len(lay_out(ingredients, settings, seed))
    if mixes > MANY and not settings.at:
        warnings.append(f"There are {mixes:,} mixes to measure; --random K or --refine K measures fewer.")
    trained = {name: trained_on(adapter) for name, adapter in adapters_in(adapters).items()}
    settings, left_out = with_adapters(settings, trained)
    laid = lay_fronts(points, trained, settings)
    points = list(laid.points)
    adapters |= {name: read_after(adapters_in(adapters)[of], step) for name, (of, step) in laid.early.items()}
    sets = {frozenset(point.used): point for point in points if point.kind == "mix"}
    for point in sets.values():
        mixed = [adapters_in(adapters)[name] for name in point.used]
        warnings += made_alike(mixed, method, allow_different_starts=allow_different_starts)[1]
    mixed_sets = [[name for name in ingredients if name != BASE], *map(list, sets)]
    mixed_names = dict.fromkeys(name for names in mixed_sets if len(names) > 1 for name in names)
    own = adapters_in(adapters)
    warnings = [*_with_starts_once(warnings, [own[name] for name in mixed_names if name in own]), *left_out]
    for checkpoint in trajectory:
        name = checkpoint.adapter.name
        adapters[name] = checkpoint.adapter
        points.append(PlannedPoint(name, "checkpoint", {name: 1.0}, facts={"step": float(checkpoint.step)}))
    return Plan(
        adapters,
        ingredients,
        tuple(points),
        settings,
        method,
        tuple(warnings),
        allow_different_starts,
        root,
        laid.fronts,
        frozenset(laid.early),
    )


def _with_starts_once(warnings: Iterable[str], adapters: Sequence[Adapter]) -> list[str]:
    """Return warnings in which one line speaks of all adapters whose start is not known, not one for each set."""
    others = [warning for warning in dict.fromkeys(warnings) if not warning.endswith(UNSURE_START)]
    return [*others, *unknown_starts(adapters)]


def kinds_of(adapters: Mapping[str, Ingredient]) -> dict[str, AdapterKind]:
    """Return what each ingredient is."""
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


def _check_models(models: Sequence[Model], base: Model | None, method: str, settings: EvaluationSection) -> list[str]:
    """Raise RsoupError if models do not go together, or with the base; return what differs."""
    assert base is not None
    if settings.with_base and _is_one_of(base, {model.name: model for model in models}):
        raise RecipeError(
            f"evaluation.with_base: the base {base.source} is one of the models already.", "Leave --with-base out."
        )
    if settings.with_base and RULES[method].base == "refused":
        raise RecipeError(f"evaluation.with_base: {method} takes no base.", "Use linear, or leave --with-base out.")
    even, needed = [1.0 / len(models)] * len(models), RULES[method].base == "needed"
    mix_models([base, models[0]], [0.5, 0.5])  # the resident base becomes each mix
    return list(mix_models(models, even, method=method, base=base if needed else None).warnings)


def _is_one_of(base: Model, models: Mapping[str, Model]) -> bool:
    return any(model.path.resolve() == base.path.resolve() for model in models.values())


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
