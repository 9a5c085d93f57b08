"""Study the updates of adapters module by module: how they lie to each other, and what methods make of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rsoup.adapters import Adapter, Layer
from rsoup.errors import AdapterError
from rsoup.mixing.effects import DENSE, Trial, tried_modules, try_method
from rsoup.mixing.geometry import Geometry, entries_seen, geometry, rows_seen
from rsoup.mixing.methods import Ingredients, Options
from rsoup.mixing.parallel import parallel
from rsoup.mixing.updates import Part


@dataclass(frozen=True)
class Mix:
    """Adapters made alike, and the weights and options that they would be mixed with."""

    adapters: Sequence[Adapter]
    weights: Sequence[float]
    base_weight: float
    options: Options

    @property
    def density(self) -> float:
        """The share of entries that methods keep."""
        return Ingredients([], 0.0, 0.0, self.options).density

    @property
    def layers(self) -> dict[str, Layer]:
        """A layer of each module that any adapter updates."""
        found: dict[str, Layer] = {}
        for adapter in self.adapters:
            for module, layer in adapter.layers.items():
                found.setdefault(module, layer)
        return found


@dataclass(frozen=True)
class Studied:
    """One module: how the updates lie to each other, and each method's result, or why it has none."""

    geometry: Geometry
    trials: Mapping[str, Trial | AdapterError]
    entries: int
    seen: int


def study(mix: Mix, methods: Sequence[str]) -> dict[str, Studied]:
    """Study every module. Methods on full matrices are tried on some, where all would take too long."""
    layers = mix.layers
    sizes = {module: math.prod(layer.shape) for module, layer in layers.items()}
    dense, most = set(tried_modules(sizes)), entries_seen(len(layers))

    def one(module: str) -> Studied:
        present = [place for place, adapter in enumerate(mix.adapters) if module in adapter.layers]
        parts = [Part(mix.adapters[place].layers[module], mix.weights[place]) for place in present]
        own = geometry([part.layer for part in parts], most)
        tried = [method for method in methods if method not in DENSE or module in dense]
        shape = layers[module].shape
        return Studied(
            own.placed(present, len(mix.adapters)),
            _trials(mix, tried, parts, own),
            sizes[module],
            rows_seen(shape, most) * shape[1],
        )

    return dict(zip(layers, parallel(one, layers), strict=True))


def trials_of(found: Mapping[str, Studied], method: str) -> list[Trial | AdapterError]:
    """Return a method's results on the modules that it was tried on."""
    results: list[Trial | AdapterError] = []
    for module, own in found.items():
        trial = own.trials.get(method)
        if isinstance(trial, AdapterError):
            results.append(AdapterError(f"{module}: {trial.message}", trial.hint))
        elif trial is not None:
            results.append(trial)
    return results


def share_seen(found: Iterable[Studied]) -> float | None:
    """Return the share of all entries whose signs were looked at."""
    pairs = [(own.seen, own.entries) for own in found]
    whole = sum(entries for _, entries in pairs)
    return sum(seen for seen, _ in pairs) / whole if whole else None


def _trials(mix: Mix, methods: Sequence[str], parts: Sequence[Part], own: Geometry) -> dict[str, Trial | AdapterError]:
    """Try methods on one module; as in a mix, an adapter of weight 0 takes no part."""
    used = [place for place, part in enumerate(parts) if part.weight]
    if not used:
        used = list(range(len(parts)))
    total = math.fsum(abs(weight) for weight in mix.weights)
    of = Ingredients([parts[place] for place in used], total, mix.base_weight, mix.options)
    products = own.products[np.ix_(used, used)]
    return {method: try_method(method, of, products) for method in methods}
