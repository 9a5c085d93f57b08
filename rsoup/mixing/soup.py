"""Mix adapters in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rsoup.adapters import Adapter, Layer, read_adapter
from rsoup.adapters.tensorfile import DTYPES
from rsoup.errors import AdapterError, did_you_mean
from rsoup.mixing.companions import shared_companions
from rsoup.mixing.compatibility import made_alike
from rsoup.mixing.methods import METHODS, Ingredients, Options, check_method
from rsoup.mixing.parallel import parallel
from rsoup.mixing.result import average_saved, cast, even_experts, exact_config, settled, shared_copies
from rsoup.mixing.updates import Part, Update
from rsoup.mixing.weights import check_weights, square_warning

Source = Adapter | str | Path
_DEFAULTS = Options()


@dataclass(frozen=True)
class Soup:
    """A mix in memory: the adapter it makes, what it was made from, and what there is to say about it.

    ``companions`` are the files of a tokenizer and chat templates that go with it, by their names.
    ``discarded`` gives per module the share of the update's energy (squared Frobenius norm) that a cut to a lower rank
    left out.
    """

    adapter: Adapter
    parents: tuple[Adapter, ...]
    weights: tuple[float, ...]
    base_weight: float
    method: str
    options: Options
    discarded: Mapping[str, float]
    warnings: tuple[str, ...]
    companions: Mapping[str, Path] = field(default_factory=dict)


def mix(
    adapters: Sequence[Source],
    weights: Sequence[float],
    *,
    method: str = "factors",
    options: Options = _DEFAULTS,
    base_weight: float = 0.0,
    allow_extrapolation: bool = False,
    allow_different_starts: bool = False,
    dtype: str | None = None,
) -> Soup:
    """Mix adapters (folders, hub ids, or adapters in memory) into one, computed in float32 and cast once.

    ``method`` is a key of ``METHODS``, where each has its formula and source. ``base_weight`` is the weight of "no
    adapter". ``dtype`` is F32, F16 or BF16; by default each tensor keeps the dtype that the adapters share, or takes
    F32. An adapter of weight 0 is checked and recorded, and takes no part. Raise AdapterError if the adapters do not
    fit together; what could not be verified is returned in ``warnings``.
    """
    check_weights(weights, len(adapters), base_weight, extrapolate=allow_extrapolation)
    check_method(method, options)
    check_dtype(dtype)
    parents = read_all(adapters)
    alike, warnings = made_alike(parents, method, allow_different_starts=allow_different_starts)
    if method == "factors":
        warnings += square_warning(weights, base_weight)
    used = [(adapter, weight) for adapter, weight in zip(alike, weights, strict=True) if weight]
    used = used or [(adapter, 0.0) for adapter in alike]
    active, shares = zip(*used, strict=True)
    layers, discarded = _mix_layers(used, method, base_weight, options, dtype)
    layers = layers if method == "factors" else even_experts(layers)
    config = active[0].config.changed() if method == "factors" else exact_config(active, layers)
    renamed = any(one is not other for one, other in zip(alike, parents, strict=True))
    adapter = Adapter(
        name="soup",
        path=None,
        config=settled(config, layers, afresh=True) if renamed else config,
        layers=layers,
        saved=average_saved(active, shares, base_weight, dtype),
        copies=shared_copies(alike),
    )
    companions, left_behind = shared_companions(active)
    told = (*warnings, *left_behind)
    return Soup(adapter, parents, tuple(weights), base_weight, method, options, discarded, told, companions)


def check_dtype(dtype: str | None) -> None:
    """Raise AdapterError if adapters cannot be written in a dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise AdapterError(f"There is no dtype {dtype!r:.40} to write.", did_you_mean(dtype, DTYPES))


def read_all(adapters: Sequence[Source]) -> tuple[Adapter, ...]:
    """Read adapters side by side; those in memory are taken as they are."""
    return tuple(parallel(lambda item: item if isinstance(item, Adapter) else read_adapter(item), adapters))


def _mix_layers(
    used: Sequence[tuple[Adapter, float]], method: str, base_weight: float, options: Options, dtype: str | None
) -> tuple[dict[str, Layer], dict[str, float]]:
    """Mix module by module; return the layers, and per module the share of energy that was cut off."""
    total = math.fsum(abs(weight) for _, weight in used)
    discarded: dict[str, float] = {}

    def mix_module(module: str) -> Layer:
        parts = [Part(adapter.layers[module], weight) for adapter, weight in used if module in adapter.layers]
        update = _mix_module(module, method, Ingredients(parts, total, base_weight, options))
        if update.discarded:
            discarded[module] = update.discarded
        down = cast(f"{module} (A)", update.down, [part.layer.down for part in parts], dtype)
        up = cast(f"{module} (B)", update.up, [part.layer.up for part in parts], dtype)
        return replace(parts[0].layer, down=down, up=up, scale=update.scale)

    modules = list(dict.fromkeys(module for adapter, _ in used for module in adapter.layers))
    layers = dict(zip(modules, parallel(mix_module, modules), strict=True))
    return layers, {module: discarded[module] for module in modules if module in discarded}


def _mix_module(module: str, method: str, ingredients: Ingredients) -> Update:
    """Mix one module. Sums too large for float32 become infinite, which a decomposition may not take."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return METHODS[method](ingredients)
    except AdapterError as problem:
        raise AdapterError(f"{module}: {problem.message}", problem.hint) from problem
    except np.linalg.LinAlgError as problem:
        raise AdapterError(
            f"The mixed update of {module} cannot be decomposed ({problem}).", "Use --method cat, or smaller weights."
        ) from problem
