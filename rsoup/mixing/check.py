"""Compare adapters before they are mixed: do they fit, how alike are they, what does each method cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsoup.adapters import Adapter, Layer
from rsoup.adapters.tensorfile import Array
from rsoup.errors import AdapterError
from rsoup.mixing.compatibility import base_of, check_compatible, start_of
from rsoup.mixing.methods import METHODS, Ingredients, Options, factors
from rsoup.mixing.parallel import parallel
from rsoup.mixing.soup import Source, read_all
from rsoup.mixing.updates import Part, gram
from rsoup.mixing.weights import check_weights


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
    """One module: cosines of the adapters' updates (None where one is zero or missing), distance of ``factors``."""

    module: str
    cosines: list[list[float | None]]
    factors_distance: float | None


@dataclass(frozen=True)
class CheckReport:
    """What there is to know before a mix.

    ``methods`` gives per method why it cannot be used, or None. ``factors_distance`` is the relative distance
    |F - E| / |E| (Frobenius) of averaged factors F from the exact mix E at ``weights``, over all modules; None where
    ``factors`` cannot be used. ``same_base`` and ``same_start`` are None where an adapter does not say.
    """

    weights: list[float]
    adapters: list[AdapterFacts]
    same_base: bool | None
    same_start: bool | None
    methods: dict[str, str | None]
    cosines: list[list[float | None]]
    factors_distance: float | None
    layers: list[LayerFacts]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON content."""
        return {"schema": 1, **dataclasses.asdict(self)}


def check(adapters: Sequence[Source], weights: Sequence[float] | None = None) -> CheckReport:
    """Compare adapters; nothing is written. ``weights`` (default: equal) decide where ``factors`` is compared."""
    parents = read_all(adapters)
    shares = list(weights) if weights is not None else [1.0 / len(parents)] * len(parents)
    check_weights(shares, len(parents), extrapolate=True)
    methods, warnings = _usable_methods(parents)
    modules = list(dict.fromkeys(module for adapter in parents for module in adapter.layers))
    shapes_fit = methods["cat"] is None
    measured = (
        parallel(lambda m: _measure(m, parents, shares, methods["factors"] is None), modules) if shapes_fit else []
    )
    return CheckReport(
        weights=shares,
        adapters=[_facts(adapter) for adapter in parents],
        same_base=_same_base(parents),
        same_start=_same([start_of(adapter) for adapter in parents]),
        methods=methods,
        cosines=_cosines(sum((one.products for one in measured), np.zeros((len(parents), len(parents))))),
        factors_distance=_distance(
            sum(one.difference for one in measured), sum(one.exact for one in measured), methods["factors"] is None
        ),
        layers=[
            LayerFacts(module, _cosines(one.products), _distance(one.difference, one.exact, methods["factors"] is None))
            for module, one in zip(modules, measured, strict=bool(measured))
        ],
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Measure:
    """One module: inner products of the updates, squared norms of the exact mix and of ``factors``' error."""

    products: Array
    exact: float
    difference: float


def _measure(module: str, adapters: Sequence[Adapter], weights: Sequence[float], with_factors: bool) -> _Measure:
    present = [i for i, adapter in enumerate(adapters) if module in adapter.layers]
    layers = [adapters[i].layers[module] for i in present]
    shares = [weights[i] for i in present]
    products = np.zeros((len(adapters), len(adapters)))
    if not with_factors:
        products[np.ix_(present, present)] = gram(layers)
        return _Measure(products, 0.0, 0.0)
    update = factors(Ingredients([Part(*pair) for pair in zip(layers, shares, strict=True)], 1.0, 0.0, Options()))
    everything = gram([*layers, Layer(layers[0].kind, update.down, update.up, update.scale)])
    products[np.ix_(present, present)] = everything[:-1, :-1]
    mixed, error = np.array([*shares, 0.0]), np.array([*shares, -1.0])
    return _Measure(products, float(mixed @ everything @ mixed), max(0.0, float(error @ everything @ error)))


def _usable_methods(adapters: Sequence[Adapter]) -> tuple[dict[str, str | None], list[str]]:
    """Return per method why it cannot be used, and what could not be verified."""
    reasons: dict[str, str | None] = {}
    warnings: list[str] = []
    for method in METHODS:
        try:
            warnings += check_compatible(adapters, method)
            reasons[method] = None
        except AdapterError as problem:
            reasons[method] = problem.message
    return reasons, list(dict.fromkeys(warnings))


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


def _cosines(products: Array) -> list[list[float | None]]:
    norms = [math.sqrt(value) for value in np.diag(products)]
    return [
        [float(products[i, j] / (norms[i] * norms[j])) if norms[i] and norms[j] else None for j in range(len(norms))]
        for i in range(len(norms))
    ]


def _distance(difference: float, exact: float, usable: bool) -> float | None:
    if not usable:
        return None
    return math.sqrt(difference / exact) if exact else 0.0
