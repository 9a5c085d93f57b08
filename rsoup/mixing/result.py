"""What makes an adapter of mixed updates: its configuration, its dtypes, the tensors that are not updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rsoup.adapters import Adapter, AdapterConfig, Layer
from rsoup.adapters.adapter import PREFIX, factor_names
from rsoup.adapters.tensorfile import DTYPES, Array, all_finite
from rsoup.errors import AdapterError
from rsoup.mixing.updates import weighted_sum

_TARGET_KEYS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def exact_config(adapters: Sequence[Adapter], layers: Mapping[str, Layer]) -> AdapterConfig:
    """Return the configuration of updates whose scale is in their factors: alpha equals the rank everywhere.

    ``r`` is the largest rank, since servers size their buffers by it.
    """
    rank = max(layer.rank for layer in layers.values())
    pattern = {module: layer.rank for module, layer in layers.items() if layer.rank != rank}
    return adapters[0].config.changed(
        r=rank,
        lora_alpha=rank,
        use_rslora=False,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        fan_in_fan_out=any(adapter.config.fan_in_fan_out for adapter in adapters),
        **_targets(adapters, layers),
    )


def average_saved(adapters: Sequence[Adapter], weights: Sequence[float], base_weight: float) -> dict[str, Array]:
    """Return the weighted average of the modules that were trained whole (modules_to_save)."""
    names = adapters[0].saved
    if names and (base_weight or abs(math.fsum(weights) - 1) > 1e-6):
        raise AdapterError(
            f"{next(iter(names))} was trained whole (modules_to_save) and can only be averaged with weights that sum "
            "to 1 without the base: an adapter does not hold the base's own values.",
            "Use weights on the simplex and no --base-weight.",
        )
    return {name: weighted_sum([adapter.saved[name] for adapter in adapters], weights) for name in names}


def shared_copies(adapters: Sequence[Adapter]) -> dict[str, Array]:
    """Return the base's embeddings that adapters carry along, which must be the same in all of them."""
    copies: dict[str, Array] = {}
    for adapter in adapters:
        for name, array in adapter.copies.items():
            if name in copies and not np.array_equal(copies[name], array):
                raise AdapterError(
                    f"{adapter.path or adapter.name} holds other base embeddings ({name}) than the adapters before it.",
                    "Mix adapters of one base model; embeddings that were trained belong in modules_to_save.",
                )
            copies[name] = array
    return copies


def cast(mixed: Adapter, adapters: Sequence[Adapter], dtype: str | None) -> Adapter:
    """Cast every mixed tensor to ``dtype``, or to the dtype that the adapters' tensors of its name share, or to F32."""
    tensors = [adapter.tensors() for adapter in adapters]

    def cast_one(name: str, array: Array) -> Array:
        shared = {found[name].dtype for found in tensors if name in found}
        return _cast(name, array, DTYPES[dtype] if dtype else shared.pop() if len(shared) == 1 else DTYPES["F32"])

    layers = {}
    for module, layer in mixed.layers.items():
        down, up = factor_names(module, layer.kind)
        layers[module] = replace(layer, down=cast_one(down, layer.down), up=cast_one(up, layer.up))
    saved = {name: cast_one(f"{PREFIX}{name}", array) for name, array in mixed.saved.items()}
    return replace(mixed, layers=layers, saved=saved)


def _cast(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype, copy=False)
    if not all_finite(result):
        raise AdapterError(
            f"The mixed tensor {name} is too large for {dtype.name}.", "Use --dtype F32, or smaller weights."
        )
    return result


def _targets(adapters: Sequence[Adapter], layers: Mapping[str, Layer]) -> dict[str, Any]:
    """Return the settings that make PEFT update these modules: the adapters' own if they agree, else plain names."""
    found: list[dict[str, Any]] = [{key: adapter.config.raw.get(key) for key in _TARGET_KEYS} for adapter in adapters]
    if all(targets == found[0] for targets in found):
        return found[0]
    plain = all(isinstance(t["target_modules"], list) and not any(t[k] for k in _TARGET_KEYS[1:]) for t in found)
    names = {name for targets in found for name in targets["target_modules"]} if plain else set(layers)
    return {**dict.fromkeys(_TARGET_KEYS), "target_modules": sorted(names)}
