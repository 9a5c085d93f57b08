"""Bring adapters that name the same layers differently to the names of the first of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rsoup.adapters import Adapter, Layer, Place
from rsoup.adapters.layers import TOKEN_ROWS
from rsoup.adapters.names import Names, canonical, split_stem
from rsoup.errors import AdapterError
from rsoup.mixing.placing import EXPERT, HALVES, OTHER_BASE, Layout, in_half
from rsoup.mixing.result import TARGET_KEYS, settled

NAMING_KEYS = (*TARGET_KEYS, "rank_pattern", "alpha_pattern")
"""The settings of a configuration that speak of layers by their names."""


def aligned(adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """Return the adapters with one name for each layer: that of the first adapter that has it.

    Where one adapter trains the experts of a layer as one parameter and another names each, the other's become parts of
    that parameter, exactly: the factors of gate and up side by side.
    """
    stacks = {canonical(place.module): place for adapter in adapters for place in _places(adapter)}
    adapters = [_stacked(adapter, stacks) for adapter in adapters]
    if all(_names(adapter) == _names(adapters[0]) for adapter in adapters):
        return tuple(adapters)
    table = _Table()
    return tuple(table.renamed(adapter) for adapter in adapters)


def named_as(adapter: Adapter, layout: Layout) -> Adapter:
    """Return an adapter under the names that a model has for its layers, with experts as the model has them.

    AdapterError if the model lacks a layer.
    """
    own: dict[str, str] = {}
    adapter = _stacked(adapter, _stacks(layout))
    for name, layer in adapter.layers.items():
        wanted = layer.place.name if layer.place else f"{name}.weight"
        tensor = layout.find(wanted)
        if tensor is None:
            raise AdapterError(
                f"{adapter.path or adapter.name}: changes {wanted.removesuffix('.weight')}, which {layout.label} does "
                "not have.",
                OTHER_BASE,
            )
        own[layer.place.module if layer.place else name] = tensor.rpartition(".")[0]
    return adapter if all(old == new for old, new in own.items()) else _renamed(adapter, own)


def _stacks(layout: Layout) -> dict[str, Place]:
    """Return where a model has the experts of a layer in one tensor, by the canonical name of their module."""
    found: dict[str, Place] = {}
    for tensor, shape in layout.shapes.items():
        module, _, parameter = tensor.rpartition(".")
        if len(shape) == 3 and module.endswith(".experts"):
            found[canonical(module)] = Place(module, parameter, 0, shape[0])
    return found


class _Table:
    """The names that adapters so far have given to modules."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # module by its name as a weight
        self._stems: dict[str, str] = {}  # the containers before a name that begins so

    def renamed(self, adapter: Adapter) -> Adapter:
        """Return an adapter under the names so far, and remember its own where there are none."""
        found = Names(self._known)
        own = {module: self._name(module, found, adapter) for module in dict.fromkeys(_owners(adapter).values())}
        if len(set(own.values())) < len(own):
            raise AdapterError(
                f"{adapter.path or adapter.name}: two of its modules are one layer.", "Train each layer under one name."
            )
        for module in own.values():
            stem, rest = split_stem(module)
            self._known.setdefault(f"{module}.weight", module)
            self._stems.setdefault(rest.partition(".")[0], stem)
        return adapter if all(old == new for old, new in own.items()) else _renamed(adapter, own)

    def _name(self, module: str, found: Names, adapter: Adapter) -> str:
        """Return the name of a module among those so far, or one like theirs."""
        try:
            known = found.find(f"{module}.weight")
        except AdapterError as problem:
            raise AdapterError(f"{adapter.path or adapter.name}: {problem.message}", problem.hint) from problem
        if known is not None:
            return self._known[known]
        stem, rest = split_stem(module)
        return self._stems.get(rest.partition(".")[0], stem) + rest


def _names(adapter: Adapter) -> set[str]:
    return {*adapter.layers, *adapter.saved, *adapter.copies}


def _places(adapter: Adapter) -> list[Place]:
    return [layer.place for layer in adapter.layers.values() if layer.place]


def _owners(adapter: Adapter) -> dict[str, str]:
    """Return the module that each of an adapter's layers and tensors belongs to."""
    owners = {name: layer.place.module if layer.place else name for name, layer in adapter.layers.items()}
    for name in (*adapter.saved, *adapter.copies):
        module = name.removesuffix(f".{TOKEN_ROWS}") if name.endswith(TOKEN_ROWS) else name.rpartition(".")[0]
        owners[name] = module.removesuffix(".base_layer")
    return owners


def _renamed(adapter: Adapter, own: Mapping[str, str]) -> Adapter:
    """Return an adapter whose modules have other names, and a configuration that still says the same of them."""
    owners = _owners(adapter)

    def new(name: str) -> str:
        return own[owners[name]] + name.removeprefix(owners[name])

    layers: dict[str, Layer] = {}
    for name, layer in adapter.layers.items():
        place = replace(layer.place, module=own[layer.place.module]) if layer.place else None
        layers[place.key if place else new(name)] = replace(layer, place=place)
    return replace(
        adapter,
        config=settled(adapter.config, layers),
        layers=layers,
        saved={new(name): array for name, array in adapter.saved.items()},
        copies={new(name): array for name, array in adapter.copies.items()},
    )


def _stacked(adapter: Adapter, stacks: Mapping[str, Place]) -> Adapter:
    """Return an adapter whose experts are parts of the parameters that other adapters train, where there are such."""
    layers: dict[str, Layer] = {}
    for name, layer in adapter.layers.items():
        expert = None if layer.place else EXPERT.fullmatch(canonical(name))
        stack = stacks.get(expert["module"]) if expert else None
        if expert is None or stack is None:
            layers[name] = layer
            continue
        whole, parts = next((item for item in HALVES.items() if expert["part"] in item[1]), (expert["part"], ()))
        place = replace(stack, parameter=whole, index=int(expert["index"]))
        if place.index >= place.count:
            raise AdapterError(
                f"{adapter.path or adapter.name}: updates expert {place.index}, and another adapter has {place.count}.",
                "Mix adapters of one base model.",
            )
        piece = in_half(layer, parts.index(expert["part"]), len(parts)) if parts else layer
        piece = replace(piece, kind="parameter", place=place)
        layers[place.key] = _joined(layers[place.key], piece) if place.key in layers else piece
    if layers.keys() == adapter.layers.keys():
        return adapter
    return replace(adapter, config=settled(adapter.config, layers), layers=layers)


def _joined(one: Layer, other: Layer) -> Layer:
    """Return the sum of two updates, with their factors side by side."""
    if one.scale == other.scale:
        ups, scale = (one.up, other.up), one.scale
    else:
        ups = tuple(part.up.astype(np.float32) * np.float32(part.scale) for part in (one, other))  # type: ignore[assignment]
        scale = 1.0
    return replace(one, down=np.concatenate([one.down, other.down]), up=np.concatenate(ups, axis=1), scale=scale)
