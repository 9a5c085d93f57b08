"""What makes an adapter of mixed updates: its configuration, its dtypes, the tensors that are not updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsoup.adapters import Adapter, AdapterConfig, Layer
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


def average_saved(
    adapters: Sequence[Adapter], weights: Sequence[float], base_weight: float, dtype: str | None
) -> dict[str, Array]:
    """Return the weighted average of the modules that were trained whole (modules_to_save)."""
    names = adapters[0].saved
    if names and (base_weight or abs(math.fsum(weights) - 1) > 1e-6):
        raise AdapterError(
            f"{next(iter(names))} was trained whole (modules_to_save) and can only be averaged with weights that sum "
            "to 1 without the base: an adapter does not hold the base's own values.",
            "Use weights on the simplex and no --base-weight.",
        )
    tensors = {name: [adapter.saved[name] for adapter in adapters] for name in names}
    return {name: cast(name, weighted_sum(arrays, weights), arrays, dtype) for name, arrays in tensors.items()}


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


def cast(name: str, array: Array, sources: Sequence[Array], dtype: str | None) -> Array:
    """Cast a mixed tensor to ``dtype``, or to the dtype that the tensors it comes from share, or to F32."""
    shared = {source.dtype for source in sources}
    target = DTYPES[dtype] if dtype else shared.pop() if len(shared) == 1 else DTYPES["F32"]
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target, copy=False)
    if not all_finite(result):
        raise AdapterError(
            f"The mixed tensor {name} is too large for {target.name}.", "Use --dtype F32, or smaller weights."
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
