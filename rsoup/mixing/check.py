"""Compare adapters before they are mixed: do they fit, how alike are they, what does each method cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rsoup.adapters import Adapter
from rsoup.errors import AdapterError
from rsoup.mixing.advice import Advice, Two, advise_all, told_apart
from rsoup.mixing.compatibility import base_of, check_compatible, made_alike, start_of
from rsoup.mixing.effects import Effect, effect, refused
from rsoup.mixing.geometry import Geometry, PairFacts
from rsoup.mixing.methods import METHODS, Options, check_options
from rsoup.mixing.naming import aligned
from rsoup.mixing.soup import Source, read_all
from rsoup.mixing.study import Mix, Studied, share_seen, study, trials_of
from rsoup.mixing.updates import wide
from rsoup.mixing.weights import check_weights

_DEFAULTS = Options()


@dataclass(frozen=True)
class AdapterFacts:
    """One adapter at a glance."""

    name: str
    path: str
    sha256: str | None
    base: str | None
    init_sha256: str | None
    ranks: list[int]
    scales: list[float]
    modules: int
    targets: list[str]
    dtypes: list[str]
    saved: list[str]


@dataclass(frozen=True)
class LayerFacts:
    """One module: norms, cosines and pairs of the adapters (None where one has no update), distance of ``factors``."""

    module: str
    norms: list[float]
    cosines: list[list[float | None]]
    pairs: list[PairFacts]
    factors_distance: float | None


@dataclass(frozen=True)
class SavedFacts:
    """A tensor that adapters trained whole: |S_a - S_b| of the two furthest apart, by the largest norm."""

    name: str
    distance: float | None


@dataclass(frozen=True)
class CheckReport:
    """What there is to know before a mix.

    ``methods`` gives per method why it cannot be used, or None; ``effects`` what it would make of the updates at
    ``weights``, before it is cast. ``factors_distance`` is that of ``factors``: |F - E| / |E| (Frobenius) of averaged
    factors F from the exact mix E; None where ``factors`` cannot be used. ``norms``, ``cosines`` and ``pairs`` are over
    all modules. ``seen`` is the share of the entries whose signs were looked at. ``same_base`` and ``same_start`` are
    None where an adapter does not say. ``advice`` says it in sentences.
    """

    weights: list[float]
    adapters: list[AdapterFacts]
    same_base: bool | None
    same_start: bool | None
    methods: dict[str, str | None]
    effects: dict[str, Effect]
    norms: list[float]
    cosines: list[list[float | None]]
    pairs: list[PairFacts]
    seen: float | None
    factors_distance: float | None
    layers: list[LayerFacts]
    saved: list[SavedFacts]
    advice: list[Advice]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON content."""
        return {"schema": 1, **dataclasses.asdict(self)}


def check(
    adapters: Sequence[Source],
    weights: Sequence[float] | None = None,
    *,
    options: Options = _DEFAULTS,
    base_weight: float = 0.0,
    allow_extrapolation: bool = False,
    allow_different_starts: bool = False,
) -> CheckReport:
    """Compare adapters; nothing is written.

    ``weights`` (default: equal), ``options`` and ``base_weight`` are those of the mixes that the methods are tried
    with. Different starts are a reason against every method, and weights off the simplex a warning, unless they are
    allowed; the figures are there anyway.
    """
    check_options(options)
    given = read_all(adapters)
    parents = aligned(given)
    shares = list(weights) if weights is not None else [(1.0 - base_weight) / len(parents)] * len(parents)
    check_weights(shares, len(parents), base_weight, extrapolate=True)
    reasons = {method: _reason(given, method, allow_different_starts=allow_different_starts) for method in METHODS}
    tried = {method: _reason(given, method, allow_different_starts=True) for method in METHODS}
    mix = Mix(parents, shares, base_weight, options)
    found = {} if tried["cat"] else study(mix, [method for method, reason in tried.items() if reason is None])
    whole = sum((module.geometry for module in found.values()), Geometry.zero(len(parents)))
    effects = {
        method: refused(reason) if reason else effect(method, trials_of(found, method), mix.density)
        for method, reason in tried.items()
    }
    return CheckReport(
        weights=shares,
        adapters=[_facts(adapter) for adapter in parents],
        same_base=_same_base(parents),
        same_start=_same([start_of(adapter) for adapter in parents]),
        methods=reasons,
        effects=effects,
        norms=whole.norms,
        cosines=whole.cosines,
        pairs=whole.pairs,
        seen=share_seen(found.values()),
        factors_distance=effects["factors"].distance,
        layers=[_layer_facts(module, own) for module, own in found.items()],
        saved=_saved(parents) if found else [],
        advice=_advice(parents, shares, whole, effects) if found else [],
        warnings=[
            *([] if reasons["cat"] else check_compatible(parents, "cat", allow_different_starts=True)),
            *([] if allow_extrapolation else _off_simplex(shares, base_weight)),
        ],
    )


def _off_simplex(weights: Sequence[float], base_weight: float) -> list[str]:
    try:
        check_weights(weights, len(weights), base_weight)
    except AdapterError as problem:
        return [f"{problem.message} A mix has to be allowed it with --allow-extrapolation."]
    return []


def _layer_facts(module: str, found: Studied) -> LayerFacts:
    own = found.geometry
    trial = found.trials.get("factors")
    distance = effect("factors", [trial], 1.0).distance if trial else None
    return LayerFacts(module, own.norms, own.cosines, own.pairs, distance)


def _saved(adapters: Sequence[Adapter]) -> list[SavedFacts]:
    """Compare what was trained whole: its updates are not known without the base."""
    found = []
    for name in adapters[0].saved:
        arrays = [wide(adapter.saved[name]).ravel() for adapter in adapters]
        largest = max(float(np.linalg.norm(array)) for array in arrays)
        apart = max((float(np.linalg.norm(a - b)) for a, b in combinations(arrays, 2)), default=0.0)
        found.append(SavedFacts(name, apart / largest if largest else None))
    return found


def _advice(
    adapters: Sequence[Adapter], weights: Sequence[float], whole: Geometry, effects: Mapping[str, Effect]
) -> list[Advice]:
    names = told_apart([adapter.name for adapter in adapters])
    twos = [
        Two(
            names=(names[facts.a], names[facts.b]),
            weights=(weights[facts.a], weights[facts.b]),
            facts=facts,
            same_start=_same([start_of(adapters[place]) for place in (facts.a, facts.b)]),
            alone=len(adapters) == 2,
        )
        for facts in whole.pairs
    ]
    return advise_all(twos, effects, exact="cat")


def _reason(adapters: Sequence[Adapter], method: str, *, allow_different_starts: bool = False) -> str | None:
    """Return why adapters cannot be mixed by a method, or None."""
    try:
        made_alike(adapters, method, allow_different_starts=allow_different_starts)
    except AdapterError as problem:
        return problem.message
    return None


def _facts(adapter: Adapter) -> AdapterFacts:
    layers = adapter.layers
    return AdapterFacts(
        name=adapter.name,
        path=str(adapter.path or ""),
        sha256=adapter.sha256,
        base=base_of(adapter)[0],
        init_sha256=start_of(adapter),
        ranks=sorted({layer.rank for layer in layers.values()}),
        scales=sorted({layer.scale for layer in layers.values()}),
        modules=len(layers),
        targets=sorted({module.rsplit(".", 1)[-1] for module in layers}),
        dtypes=sorted({array.dtype.name for array in adapter.tensors().values()}),
        saved=sorted(adapter.saved),
    )


def _same_base(adapters: Sequence[Adapter]) -> bool | None:
    names, hashes = zip(*(base_of(adapter) for adapter in adapters), strict=True)
    return _same(names if None in hashes else hashes)


def _same(values: Sequence[str | None]) -> bool | None:
    known = {value for value in values if value is not None}
    if len(known) > 1:
        return False
    return None if None in values else True
