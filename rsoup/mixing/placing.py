"""Where each update of an adapter lies in a model: in a checkpoint's tensors or in those of a model in memory.

The experts of a layer are one tensor (experts, out, in) in one place and a matrix each in another; gate and up are one
matrix here and two there. What an adapter updates is found in whatever form the model has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.names import Names, canonical
from rsoup.adapters.tensorfile import Array
from rsoup.errors import ModelError, RsoupError

OTHER_BASE = "Give the base model that the adapter was trained on."
EXPERT = re.compile(r"(?P<module>.+\.experts)\.(?P<index>\d+)\.(?P<part>[^.]+)")
HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}
"""What is one matrix where experts are one tensor: its parts, from the first row down."""


@dataclass(frozen=True)
class Placed:
    """An update of one matrix of a tensor: from row ``start`` on of the tensor seen as (rows, columns).

    ``transposed`` where that matrix is (in, out). ``half`` tells the updates apart that fill only a part of it.
    """

    tensor: str
    layer: Layer
    transposed: bool
    start: int = 0
    half: int = 0


@dataclass(frozen=True)
class Layout:
    """The tensors of a model: their shapes, and what shapes alone do not tell.

    ``label`` names the model in errors, ``elsewhere`` says what to do where a name is not found. ``turned`` tells
    of a square matrix, and ``turned_experts`` of experts whose matrices are square, whether they are (in, out).
    """

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    turned: Callable[[str], bool]
    turned_experts: Callable[[str], bool]
    elsewhere: str = OTHER_BASE

    @cached_property
    def names(self) -> Names:
        """The tensors' names, to be found by what an adapter calls them."""
        return Names(self.shapes)

    def find(self, tensor: str) -> str | None:
        """Return the name that a tensor has here, or None."""
        try:
            return self.names.find(tensor)
        except RsoupError as problem:
            raise ModelError(f"{self.label}: {problem.message}", problem.hint) from problem

    def missing(self, tensor: str) -> ModelError:
        """Return the error for a tensor that an adapter updates and this model lacks."""
        return ModelError(f"{self.label}: has no tensor {tensor}, which the adapter updates.", self.elsewhere)


def place(layers: Mapping[str, Layer], layout: Layout) -> list[Placed]:
    """Return where each update lies; ModelError if the model lacks a tensor or has it in another shape."""
    found = [placed for module, layer in layers.items() for placed in _place(module, layer, layout)]
    places = Counter((placed.tensor, placed.start, placed.half) for placed in found)
    for (tensor, *_), count in places.items():
        if count > 1:
            raise ModelError(
                f"{layout.label}: {count} of the adapter's modules are {tensor}.", "Train each layer under one name."
            )
    return found


def _place(module: str, layer: Layer, layout: Layout) -> Iterator[Placed]:
    if layer.place:
        yield from _place_bare(layer, layout)
        return
    tensor = layout.find(f"{module}.weight")
    if tensor is not None:
        yield _fitted(tensor, layer, layout)
        return
    expert = EXPERT.fullmatch(canonical(module))
    if expert is not None:
        yield _place_expert(module, expert, layer, layout)
        return
    found = list(_place_halves(module, layer, layout))
    if not found:
        raise layout.missing(f"{module}.weight")
    yield from found


def _place_halves(module: str, layer: Layer, layout: Layout) -> Iterator[Placed]:
    """Find gate and up where the model has them in one matrix and the adapter in two, or the other way round."""
    owner, _, last = module.rpartition(".")
    for whole, parts in HALVES.items():
        if last == whole:
            pieces = [layout.find(f"{owner}.{part}.weight") for part in parts]
            for piece, tensor in zip(_split(layer, len(parts)), pieces, strict=True):
                if tensor is not None and None not in pieces:
                    yield _fitted(tensor, piece, layout)
        elif last in parts and (tensor := layout.find(f"{owner}.{whole}.weight")):
            half = parts.index(last)
            yield replace(_fitted(tensor, in_half(layer, half, len(parts)), layout), half=half)


def _split(layer: Layer, halves: int) -> list[Layer]:
    """Return the updates of the parts of a matrix, from the first row down."""
    rows = layer.shape[0] // halves
    return [replace(layer, up=layer.up[at * rows : (at + 1) * rows]) for at in range(halves)]


def _place_expert(module: str, expert: re.Match[str], layer: Layer, layout: Layout) -> Placed:
    """Find an expert's own module in the tensor of all experts."""
    owner, index, part = expert["module"], int(expert["index"]), expert["part"]
    tensor = layout.find(f"{owner}.{part}")
    if tensor is not None:
        return _in_stack(tensor, index, None, layer, layout)
    for whole, parts in HALVES.items():
        tensor = layout.find(f"{owner}.{whole}") if part in parts else None
        if tensor is not None:
            half = parts.index(part)
            return replace(_in_stack(tensor, index, None, in_half(layer, half, len(parts)), layout), half=half)
    raise layout.missing(f"{module}.weight")


def _place_bare(layer: Layer, layout: Layout) -> Iterator[Placed]:
    """Find a bare parameter, or the modules that its experts are elsewhere."""
    own = layer.place
    assert own
    tensor = layout.find(own.name)
    if tensor is not None and len(layout.shapes[tensor]) == 3:
        yield _in_stack(tensor, own.index, own.count, layer, layout)
        return
    if tensor is not None:
        yield _fitted(tensor, layer, layout)
        return
    parts = HALVES.get(own.parameter, (own.parameter,))
    tensors = [layout.find(f"{own.module}.{own.index}.{part}.weight") for part in parts]
    for part, piece, tensor in zip(parts, _split(layer, len(parts)), tensors, strict=True):
        if tensor is None:
            raise layout.missing(f"{own.name} (nor {own.module}.{own.index}.{part}.weight)")
        yield _fitted(tensor, replace(piece, kind="linear", place=None), layout)


def in_half(layer: Layer, half: int, halves: int) -> Layer:
    """Return an update of some rows as one of the whole matrix, zero elsewhere."""
    rows = layer.shape[0]
    up: Array = np.zeros((rows * halves, layer.rank), layer.up.dtype)
    up[half * rows : (half + 1) * rows] = layer.up
    return replace(layer, up=up)


def _in_stack(tensor: str, index: int, count: int | None, layer: Layer, layout: Layout) -> Placed:
    shape = layout.shapes[tensor]
    if len(shape) != 3 or (count is not None and count != shape[0]) or index >= shape[0]:
        experts = f"{count} experts" if count is not None else f"expert {index}"
        raise ModelError(
            f"{layout.label}: {tensor} has shape {shape}, and the adapter updates {experts} of it.", OTHER_BASE
        )
    transposed = _is_transposed(tensor, shape[1:], layer, layout, layout.turned_experts)
    return Placed(tensor, layer, transposed, start=index * shape[1])


def _fitted(tensor: str, layer: Layer, layout: Layout) -> Placed:
    shape = layout.shapes[tensor]
    if layer.bare:
        if shape != layer.shape:
            raise _misfit(tensor, shape, layer, layout)
        return Placed(tensor, layer, transposed=False)
    if layer.kind == "embedding":
        if shape != layer.shape[::-1]:
            raise _misfit(tensor, shape, layer, layout)
        return Placed(tensor, layer, transposed=True)
    return Placed(tensor, layer, _is_transposed(tensor, shape, layer, layout, layout.turned))


def _is_transposed(
    tensor: str, shape: tuple[int, ...], layer: Layer, layout: Layout, turned: Callable[[str], bool]
) -> bool:
    """Tell whether a matrix is (in, out): by its shape, and where that is square by what the model says."""
    if tuple(sorted(shape)) != tuple(sorted(layer.shape)):
        raise _misfit(tensor, shape, layer, layout)
    return turned(tensor) if layer.shape[0] == layer.shape[1] else shape != layer.shape


def _misfit(tensor: str, shape: tuple[int, ...], layer: Layer, layout: Layout) -> ModelError:
    return ModelError(
        f"{layout.label}: {tensor} has shape {shape}, and the adapter's update of it {layer.shape}.", OTHER_BASE
    )
