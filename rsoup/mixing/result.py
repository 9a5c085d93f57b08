"""What makes an adapter of mixed updates: its configuration, its dtypes, the tensors that are not updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsoup.adapters import Adapter, AdapterConfig, Layer
from rsoup.adapters.names import canonical
from rsoup.adapters.stacks import padded
from rsoup.adapters.tensorfile import DTYPES, Array, all_finite
from rsoup.errors import AdapterError
from rsoup.mixing.placing import EXPERT
from rsoup.mixing.updates import weighted_sum

_TARGET_LISTS = ("target_modules", "target_parameters")
_TARGET_LIMITS = ("exclude_modules", "layers_to_transform", "layers_pattern")
_NOTHING = "nothing"
"""A target that names no parameter, to be replaced by the layers' own names."""
TARGET_KEYS = (*_TARGET_LISTS, *_TARGET_LIMITS)
"""The settings of a configuration that say which layers have an update."""


def exact_config(adapters: Sequence[Adapter], layers: Mapping[str, Layer]) -> AdapterConfig:
    """Return the configuration of updates whose scale is in their factors: alpha equals the rank everywhere.

    ``r`` is the largest rank, since servers size their buffers by it.
    """
    rank = max((layer.rank for layer in layers.values()), default=adapters[0].config.rank)
    config = adapters[0].config.changed(
        r=rank,
        lora_alpha=rank,
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        fan_in_fan_out=any(adapter.config.fan_in_fan_out for adapter in adapters),
        ensure_weight_tying=False,
        **_targets(adapters),
    )
    return settled(config, layers)


def settled(config: AdapterConfig, layers: Mapping[str, Layer]) -> AdapterConfig:
    """Return a configuration that gives exactly these layers their ranks and scales: the given one, if it does."""
    ranks: dict[str, int] = {}
    scales: dict[str, float] = {}
    bare: set[str] = set()
    for module, layer in layers.items():
        name = layer.place.name if layer.place else module
        ranks[name], scales[name] = max(layer.rank, ranks.get(name, 0)), layer.scale
        bare |= {name} if layer.place else set()
    covered = all(config.targets_parameter(name) if name in bare else config.targets(name) for name in ranks)
    ranked = all(config.rank_of(name) == rank for name, rank in ranks.items())
    if covered and ranked and all(config.scale_of(name) == scale for name, scale in scales.items()):
        return config
    changes: dict[str, Any] = {}
    if not covered:
        changes = {**dict.fromkeys(TARGET_KEYS), "target_modules": sorted(ranks.keys() - bare)}
        changes |= {"target_parameters": sorted(bare) or None, **({"lora_dropout": 0.0} if bare else {})}
    alphas = {name: scale * _divisor(config, ranks[name]) for name, scale in scales.items()}
    return config.changed(
        **changes,
        rank_pattern={name: rank for name, rank in ranks.items() if rank != config.rank},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != config.alpha},
    )


def even_experts(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return layers whose experts, where each has a name of its own, are of one rank: loaders stack their factors."""
    named = {name for name, layer in layers.items() if not layer.place and EXPERT.fullmatch(canonical(name))}
    rank = max((layer.rank for layer in layers.values()), default=0)
    return {name: padded(layer, rank) if name in named else layer for name, layer in layers.items()}


def _divisor(config: AdapterConfig, rank: int) -> float:
    """Return what alpha is divided by."""
    return math.sqrt(rank) if config.rslora else rank


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


def _targets(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """Return the settings that make PEFT update the adapters' modules: their own if they agree, else plain names."""
    found: list[dict[str, Any]] = [{key: adapter.config.raw.get(key) for key in TARGET_KEYS} for adapter in adapters]
    if all(targets == found[0] for targets in found):
        return found[0]
    plain = all(isinstance(t["target_modules"], list) and not any(t[k] for k in _TARGET_LIMITS) for t in found)
    if not plain:
        return {**dict.fromkeys(TARGET_KEYS), "target_modules": [], "target_parameters": [_NOTHING]}
    united = {key: sorted({name for targets in found for name in targets[key] or []}) for key in _TARGET_LISTS}
    return {**dict.fromkeys(TARGET_KEYS), **united}
