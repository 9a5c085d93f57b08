"""What makes an adapter of mixed updates: its configuration, its dtypes, the tensors that are not updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rsoup.adapters import Adapter, AdapterConfig, Layer
from rsoup.adapters.names import canonical, split_stem
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


def settled(config: AdapterConfig, layers: Mapping[str, Layer], *, afresh: bool = False) -> AdapterConfig:
    """Return a configuration that gives exactly these layers their ranks and scales: the given one, if it does.

    ``afresh`` names the layers anew in any case: without the containers before them, which differ between versions.
    """
    named = _by_name(layers)
    if not afresh and _covers(config, named) and _fits(config, named):
        return config
    own = {name: split_stem(name)[1] for name in sorted(named, key=lambda name: (-len(name), name))}
    changes: dict[str, Any] = {}
    if afresh or not _covers(config, named):
        modules, parameters = ({own[name] for name in own if named[name].bare is chosen} for chosen in (False, True))
        changes = {**dict.fromkeys(TARGET_KEYS), "target_modules": sorted(modules)}
        changes |= {"target_parameters": sorted(parameters) or None, **({"lora_dropout": 0.0} if parameters else {})}
    alphas = {name: what.scale * _divisor(config, what.rank) for name, what in named.items()}
    for every in (False, True):  # where one short name is the end of another, each is said; the first that fits counts
        made = config.changed(
            **changes,
            rank_pattern={own[name]: named[name].rank for name in own if every or named[name].rank != config.rank},
            alpha_pattern={own[name]: alphas[name] for name in own if every or alphas[name] != config.alpha},
        )
        if _fits(made, named):
            break
    return made


class _Named(NamedTuple):
    """What a configuration has to say of a module or a bare parameter."""

    rank: int
    scale: float
    bare: bool


def _by_name(layers: Mapping[str, Layer]) -> dict[str, _Named]:
    named: dict[str, _Named] = {}
    for module, layer in layers.items():
        name = layer.place.name if layer.place else module
        rank = max(layer.rank, named[name].rank if name in named else 0)
        named[name] = _Named(rank, layer.scale, layer.place is not None)
    return named


def _covers(config: AdapterConfig, named: Mapping[str, _Named]) -> bool:
    return all(config.targets_parameter(name) if what.bare else config.targets(name) for name, what in named.items())


def _fits(config: AdapterConfig, named: Mapping[str, _Named]) -> bool:
    return all(config.rank_of(name) == what.rank for name, what in named.items()) and all(
        math.isclose(config.scale_of(name), what.scale, rel_tol=1e-12) for name, what in named.items()
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
    weights = {name for targets in found for name in targets["target_parameters"] or [] if name.endswith(".weight")}
    plain = plain and not weights  # PEFT takes a layer as a module or by its weight, not both
    if not plain:
        return {**dict.fromkeys(TARGET_KEYS), "target_modules": [], "target_parameters": [_NOTHING]}
    united = {key: sorted({name for targets in found for name in targets[key] or []}) for key in _TARGET_LISTS}
    return {**dict.fromkeys(TARGET_KEYS), **united}
