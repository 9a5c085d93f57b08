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
from rsoup.mixing.compatibility import base_of, check_compatible, made_alike, start_of
from rsoup.mixing.methods import METHODS, Ingredients, Options, factors
from rsoup.mixing.naming import aligned
from rsoup.mixing.parallel import parallel
from rsoup.mixing.soup import Source, read_all
from rsoup.mixing.updates import Part, gram, norms
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
    given = read_all(adapters)
    parents = aligned(given)
    shares = list(weights) if weights is not None else [1.0 / len(parents)] * len(parents)
    check_weights(shares, len(parents), extrapolate=True)
    reasons = {method: _reason(given, method) for method in METHODS}
    measures = _measure_all(given, parents, shares)
    total = sum(measures.values(), _Measure(np.zeros((len(parents), len(parents)))))
    return CheckReport(
        weights=shares,
        adapters=[_facts(adapter) for adapter in parents],
        same_base=_same_base(parents),
        same_start=_same([start_of(adapter) for adapter in parents]),
        methods=reasons,
        cosines=total.cosines,
        factors_distance=total.distance,
        layers=[LayerFacts(module, found.cosines, found.distance) for module, found in measures.items()],
        warnings=[] if reasons["cat"] else check_compatible(parents, "cat"),
    )


@dataclass(frozen=True)
class _Measure:
    """Inner products of the updates; squared norms of the exact mix and of the error of ``factors``, if it applies."""

    products: Array  # (adapters, adapters)
    exact: float | None = None
    error: float | None = None

    def __add__(self, other: _Measure) -> _Measure:
        exact = None if other.exact is None else (self.exact or 0.0) + other.exact
        error = None if other.error is None else (self.error or 0.0) + other.error
        return _Measure(self.products + other.products, exact, error)

    @property
    def cosines(self) -> list[list[float | None]]:
        sizes = norms(self.products)
        return [
            [float(product / (a * b)) if a and b else None for product, b in zip(row, sizes, strict=True)]
            for row, a in zip(self.products, sizes, strict=True)
        ]

    @property
    def distance(self) -> float | None:
        if self.exact is None or self.error is None:
            return None
        return math.sqrt(self.error / self.exact) if self.exact else 0.0


def _measure_all(
    given: Sequence[Adapter], adapters: Sequence[Adapter], weights: Sequence[float]
) -> dict[str, _Measure]:
    """Measure every module of adapters made alike, whatever the starts; nothing where they are of different bases."""
    if _reason(given, "cat", allow_different_starts=True):
        return {}
    comparable = _reason(given, "factors", allow_different_starts=True) is None

    def measure(module: str) -> _Measure:
        present = [i for i, adapter in enumerate(adapters) if module in adapter.layers]
        parts = [Part(adapters[i].layers[module], weights[i]) for i in present]
        return _measure(parts, np.ix_(present, present), len(adapters), comparable)

    modules = list(dict.fromkeys(module for adapter in adapters for module in adapter.layers))
    return dict(zip(modules, parallel(measure, modules), strict=True))


def _measure(parts: Sequence[Part], place: Any, count: int, comparable: bool) -> _Measure:
    """Measure one module; ``place`` is where its parts lie among ``count`` adapters."""
    products = np.zeros((count, count))
    layers = [part.layer for part in parts]
    if not comparable:
        products[place] = gram(layers)
        return _Measure(products)
    update = factors(Ingredients(parts, 1.0, 0.0, Options()))
    everything = gram([*layers, Layer(layers[0].kind, update.down, update.up, update.scale)])
    products[place] = everything[:-1, :-1]
    mixed, error = (np.array([*(part.weight for part in parts), last]) for last in (0.0, -1.0))
    return _Measure(products, float(mixed @ everything @ mixed), max(0.0, float(error @ everything @ error)))


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
