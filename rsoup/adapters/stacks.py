"""LoRA on bare parameters (PEFT's ``target_parameters``), such as the experts of a layer in one tensor.

PEFT keeps the factors of all E experts of a parameter in one matrix each: A is (E, r, in) in the shape (E r, in), B is
(out, r, E) in the shape (out, r E); the update of expert e is B_e A_e. Several parameters of one module are wrapped one
around the other, the first registered inmost: their factors are under ``module``, ``module.base_layer``, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from rsoup.adapters.layers import Layer, Place
from rsoup.adapters.tensorfile import Array

_REGISTERED = (
    "gate_up_proj",
    "gate_up_proj_bias",
    "gate_proj",
    "up_proj",
    "w1",
    "v1",
    "down_proj",
    "down_proj_bias",
    "w2",
)
"""The parameters of experts in the order in which models register them."""
_INNER = ".base_layer"


def unwrap(module: str) -> tuple[str, int]:
    """Return a module's own name, and how deep in wrappers its factors lie."""
    depth = 0
    while module.endswith(_INNER):
        module, depth = module.removesuffix(_INNER), depth + 1
    return module, depth


def parameters_of(module: str, targets: Iterable[str], *, is_layer: bool) -> list[str]:
    """Return the parameters of a module that ``target_parameters`` names, those named with their module first.

    A parameter named alone may be any module's, but not that of a layer (``is_layer``: target_modules covers it).
    """
    named, bare = set(), set()
    for target in targets:
        owner, _, parameter = target.rpartition(".")
        if owner and (module == owner or module.endswith(f".{owner}")):
            named.add(parameter)
        elif not owner and (not is_layer or module.endswith(".experts")):
            bare.add(parameter)
    return sorted(named or bare)


def in_order(parameters: Sequence[str]) -> list[str] | None:
    """Return the parameters of one module as models register them; None where that is not known."""
    if len(parameters) > 1 and not set(parameters) <= set(_REGISTERED):
        return None
    return sorted(parameters, key=lambda name: _REGISTERED.index(name) if name in _REGISTERED else 0)


def experts(module: str, parameter: str, down: Array, up: Array, rank: int, scale: float) -> Iterable[Layer]:
    """Yield the updates of a parameter's experts, as views of their common factors."""
    count = down.shape[0] // rank
    downs = down.reshape(count, rank, down.shape[1])
    ups = up.reshape(up.shape[0], rank, count)
    for index in range(count):
        yield Layer("parameter", downs[index], ups[:, :, index], scale, Place(module, parameter, index, count))


def stacked(layers: Iterable[Layer]) -> dict[str, tuple[Array, Array]]:
    """Return A and B of every wrapped parameter, by the name of its wrapper; lower ranks are filled with zeros."""
    modules: dict[str, dict[str, list[Layer]]] = {}
    for layer in layers:
        assert layer.place
        modules.setdefault(layer.place.module, {}).setdefault(layer.place.parameter, []).append(layer)
    found: dict[str, tuple[Array, Array]] = {}
    for module, parameters in modules.items():
        order = in_order(list(parameters)) or sorted(parameters)
        for depth, parameter in enumerate(reversed(order)):
            found[module + _INNER * depth] = _side_by_side(parameters[parameter])
    return found


def padded(layer: Layer, rank: int) -> Layer:
    """Return the same update with factors of a larger rank."""
    if layer.rank == rank:
        return layer
    down = np.zeros((rank, layer.down.shape[1]), layer.down.dtype)
    up = np.zeros((layer.up.shape[0], rank), layer.up.dtype)
    down[: layer.rank], up[:, : layer.rank] = layer.down, layer.up
    return replace(layer, down=down, up=up)


def _side_by_side(layers: Sequence[Layer]) -> tuple[Array, Array]:
    first = layers[0]
    assert first.place
    rank, count = max(layer.rank for layer in layers), first.place.count
    dtypes = {layer.down.dtype for layer in layers}
    dtype = first.down.dtype if len(dtypes) == 1 else np.dtype(np.float32)
    down = np.zeros((count, rank, first.down.shape[1]), dtype)
    up = np.zeros((first.up.shape[0], rank, count), dtype)
    for layer in layers:
        assert layer.place
        down[layer.place.index, : layer.rank] = layer.down
        up[:, : layer.rank, layer.place.index] = layer.up
    return down.reshape(count * rank, -1), up.reshape(len(up), rank * count)
