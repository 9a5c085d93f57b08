"""What a mix changes in a base model, tensor by tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rsoup.adapters import AdapterConfig, Layer
from rsoup.adapters.config import HEADS
from rsoup.adapters.layers import TOKEN_ROWS
from rsoup.adapters.tensorfile import DTYPES, Array, TensorInfo, map_tensors
from rsoup.errors import ModelError
from rsoup.mixing.base import BaseModel, layout_of
from rsoup.mixing.placing import OTHER_BASE, Layout, Placed, place
from rsoup.mixing.soup import Soup
from rsoup.mixing.tying import Untied, twin, untied
from rsoup.mixing.updates import gram, wide

_ROWS = 1024
_HEADLESS = "Save the base with a head first, by the class that the adapter was trained with, and merge into that."
_RESIZE = "Resize the base first, as in training: model.resize_token_embeddings(...), save_pretrained(...)."


class Addition(ABC):
    """An update is added to a tensor, seen as rows of its last dimension."""

    @abstractmethod
    def product(self, rows: slice, out: Array) -> Array:
        """Compute some rows of the update into ``out``, in float32."""

    @property
    @abstractmethod
    def squared_norm(self) -> float:
        """The squared Frobenius norm of the update, from rank x rank products."""


@dataclass(frozen=True)
class LayerAddition(Addition):
    """The update of a layer is added to its matrix; ``transposed`` where that is (in, out).

    Its factors are widened row by row when they are needed: all of them at once would take twice the adapter's size.
    """

    layer: Layer
    transposed: bool

    @property
    def rows(self) -> int:
        """The number of rows of the matrix."""
        return self.layer.shape[1 if self.transposed else 0]

    def product(self, rows: slice, out: Array) -> Array:
        scale = np.float32(self.layer.scale)
        if self.transposed:
            return np.matmul(wide(self.layer.down[:, rows]).T, (wide(self.layer.up) * scale).T, out=out)
        return np.matmul(wide(self.layer.up[rows]) * scale, wide(self.layer.down), out=out)

    @property
    def squared_norm(self) -> float:
        return float(gram([self.layer])[0, 0])


@dataclass(frozen=True)
class StackAddition(Addition):
    """Updates are added to the matrices of a tensor that holds several, each from its first row on."""

    parts: tuple[tuple[int, LayerAddition], ...]

    def product(self, rows: slice, out: Array) -> Array:
        out[:] = 0
        for start, part in self.parts:
            first, last = max(rows.start, start), min(rows.stop, start + part.rows)
            if first < last:
                own = out[first - rows.start : last - rows.start]
                own += part.product(slice(first - start, last - start), np.empty_like(own))
        return out

    @property
    def squared_norm(self) -> float:
        return sum(part.squared_norm for _, part in self.parts)


@dataclass(frozen=True)
class Replacement:
    """``value`` takes the tensor's place, or with ``rows`` the place of some of its rows."""

    value: Array
    rows: tuple[int, ...] | None = None


Change = Addition | Replacement


@dataclass(frozen=True)
class Plan:
    """The change of each tensor that has one, and the output embeddings that need a tensor of their own."""

    changes: Mapping[str, Change]
    untied: Untied | None = None
    warnings: tuple[str, ...] = field(default=())


def plan_changes(soup: Soup, base: BaseModel) -> Plan:
    """Return what a mix changes in a base; raise ModelError where the two do not fit."""
    adapter = soup.adapter
    ends = untied(base, adapter)
    more = {ends.new: base.info(ends.source).shape} if ends and ends.new else {}
    layout = layout_of(base, fan_in_fan_out=adapter.config.fan_in_fan_out, more=more)
    infos = {name: base.info(ends.source if ends and name == ends.new else name) for name in layout.shapes}
    changes = _additions(base, place(adapter.layers, layout), infos)
    for name, value in adapter.saved.items():
        tensor, rows = saved_tensor(name, value.shape, adapter.config, layout)
        _check_dtype(base, tensor, infos[tensor])
        if tensor in changes:
            raise ModelError(
                f"{base.folder}: the adapter both updates {tensor} and trains it whole.", "Train it in one way."
            )
        changes[tensor] = Replacement(value, rows)
        if rows is not None and (other := twin(base, tensor)) and other not in changes:
            changes[other] = Replacement(value, rows)
    _check_copies(base, adapter.copies, layout, ends)
    return Plan(changes, ends, (ends.warning,) if ends else ())


def _additions(base: BaseModel, placed: list[Placed], infos: Mapping[str, TensorInfo]) -> dict[str, Change]:
    parts: dict[str, list[tuple[int, LayerAddition]]] = {}
    for own in placed:
        _check_dtype(base, own.tensor, infos[own.tensor])
        parts.setdefault(own.tensor, []).append((own.start, LayerAddition(own.layer, own.transposed)))
    return {
        tensor: found[0][1] if len(infos[tensor].shape) == 2 and len(found) == 1 else StackAddition(tuple(found))
        for tensor, found in parts.items()
    }


def saved_tensor(
    name: str, shape: tuple[int, ...], config: AdapterConfig, layout: Layout
) -> tuple[str, tuple[int, ...] | None]:
    """Return the tensor that what was trained as it is replaces, and the rows if only some; ModelError if none fits."""
    module, _, _ = name.partition(f".{TOKEN_ROWS}")
    rows = config.tokens_of(module) if module != name else None
    wanted = f"{module}.weight" if rows is not None else name.replace(".base_layer.", ".")
    tensor = layout.find(wanted)
    if tensor is None:
        hint = _HEADLESS if wanted.partition(".")[0] in HEADS else layout.elsewhere
        raise ModelError(f"{layout.label}: has no tensor {wanted}, which the adapter trained whole.", hint)
    held = layout.shapes[tensor]
    if rows is not None and max(rows) >= held[0]:
        raise ModelError(
            f"{layout.label}: {tensor} has {held[0]} rows, and the adapter trained that of token {max(rows)}.", _RESIZE
        )
    if (held[1:] != shape[1:]) if rows is not None else (held != shape):
        raise ModelError(
            f"{layout.label}: {tensor} has shape {held}, and the adapter trained it with {shape}.", _RESIZE
        )
    return tensor, rows


def _check_dtype(base: BaseModel, tensor: str, info: TensorInfo) -> None:
    if info.dtype not in DTYPES:
        raise ModelError(
            f"{base.folder}: {tensor} has dtype {info.dtype}; only {', '.join(DTYPES)} can take an update.",
            "Merge into the original float16, bfloat16 or float32 model, then quantise.",
        )


def _check_copies(base: BaseModel, copies: Mapping[str, Array], layout: Layout, ends: Untied | None) -> None:
    """Check that the base embeddings an adapter carries along are this base's."""
    for name, array in copies.items():
        tensor = layout.find(name.replace(".base_layer.", "."))
        if tensor is None and base.ties_embeddings:
            continue
        if tensor is None:
            raise layout.missing(name)
        source = ends.source if ends and tensor == ends.new else tensor
        _check_dtype(base, source, base.info(source))
        held = map_tensors(base.where[source], only=source)[source]
        if held.shape[1:] == array.shape[1:] and len(held) != len(array):
            raise ModelError(
                f"{base.folder}: {tensor} has {len(held)} rows, and the copy in the adapter has {len(array)}.", _RESIZE
            )
        if held.shape != array.shape or not _same_values(held, array):
            raise ModelError(
                f"{base.folder}: {tensor} differs from the copy in the adapter (resized or trained embeddings?).",
                OTHER_BASE,
            )


def _same_values(held: Array, copy: Array) -> bool:
    """Tell whether a copy, cast to the dtype of what the base holds, is equal to it; a chunk of rows at a time."""
    return all(
        np.array_equal(held[row : row + _ROWS], copy[row : row + _ROWS].astype(held.dtype))
        for row in range(0, len(held), _ROWS)
    )
