"""What a mix changes in a base model, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import DTYPES, Array, TensorInfo, map_tensors
from rsoup.errors import ModelError
from rsoup.mixing.base import CONV1D_MODELS, INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, BaseModel, locate
from rsoup.mixing.soup import Soup
from rsoup.mixing.updates import gram, wide

_ROWS = 1024
_OTHER_BASE = "Give the base model that the adapter was trained on."


@dataclass(frozen=True)
class Addition:
    """The update of a layer is added to the tensor; ``transposed`` where that is (in, out).

    Its factors are widened row by row when they are needed: all of them at once would take twice the adapter's size.
    """

    layer: Layer
    transposed: bool

    def product(self, rows: slice, out: Array) -> Array:
        """Compute some rows of the update into ``out``, in float32."""
        scale = np.float32(self.layer.scale)
        if self.transposed:
            return np.matmul(wide(self.layer.down[:, rows]).T, (wide(self.layer.up) * scale).T, out=out)
        return np.matmul(wide(self.layer.up[rows]) * scale, wide(self.layer.down), out=out)

    @property
    def squared_norm(self) -> float:
        """The squared Frobenius norm of the update, from rank x rank products."""
        return float(gram([self.layer])[0, 0])


@dataclass(frozen=True)
class Replacement:
    """``value`` takes the tensor's place."""

    value: Array


Change = Addition | Replacement


def plan_changes(soup: Soup, base: BaseModel) -> dict[str, Change]:
    """Return the change of each of the base's tensors that has one; raise ModelError where the two do not fit."""
    adapter = soup.adapter
    saved_modules = {name.rpartition(".")[0]: name for name in adapter.saved}
    names = locate(base, [*adapter.layers, *saved_modules])
    for module in (*adapter.layers, *saved_modules):
        _refuse_tied(base, module)
    changes: dict[str, Change] = {}
    for module, layer in adapter.layers.items():
        tensor = f"{names[module]}.weight"
        changes[tensor] = _addition(base, tensor, layer, fan_in_fan_out=adapter.config.fan_in_fan_out)
    for name, value in adapter.saved.items():
        module, _, kind = name.rpartition(".")
        changes[f"{names[module]}.{kind}"] = _replacement(base, f"{names[module]}.{kind}", value)
    _check_copies(base, adapter.copies)
    return changes


def _addition(base: BaseModel, tensor: str, layer: Layer, *, fan_in_fan_out: bool) -> Addition:
    info = base.info(tensor)
    _check_dtype(base, tensor, info)
    if sorted(info.shape) != sorted(layer.shape) or len(info.shape) != 2:
        raise ModelError(
            f"{base.folder}: {tensor} has shape {info.shape}, and the adapter's update of it {layer.shape}.",
            _OTHER_BASE,
        )
    return Addition(layer, _is_transposed(base, tensor, info, layer, fan_in_fan_out))


def _is_transposed(base: BaseModel, tensor: str, info: TensorInfo, layer: Layer, fan_in_fan_out: bool) -> bool:
    """Tell whether the tensor is (in, out): by its shape, and where that is square by the kind of model."""
    if layer.kind == "embedding":
        return True
    if layer.shape[0] != layer.shape[1]:
        return info.shape != layer.shape
    return (fan_in_fan_out or base.config.get("model_type") in CONV1D_MODELS) and "lm_head" not in tensor


def _replacement(base: BaseModel, tensor: str, value: Array) -> Replacement:
    if tensor not in base.where:
        raise ModelError(f"{base.folder}: has no tensor {tensor}, which the adapter trained whole.", _OTHER_BASE)
    info = base.info(tensor)
    _check_dtype(base, tensor, info)
    if info.shape != value.shape:
        raise ModelError(
            f"{base.folder}: {tensor} has shape {info.shape}, and the adapter trained it with {value.shape}.",
            "Resize the base first, as in training: model.resize_token_embeddings(...), save_pretrained(...).",
        )
    return Replacement(value)


def _check_dtype(base: BaseModel, tensor: str, info: TensorInfo) -> None:
    if info.dtype not in DTYPES:
        raise ModelError(
            f"{base.where[tensor].path}: {tensor} has dtype {info.dtype}; only {', '.join(DTYPES)} can take an update.",
            "Merge into the original float16, bfloat16 or float32 model, then quantise.",
        )


def _refuse_tied(base: BaseModel, module: str) -> None:
    """Refuse an update of embeddings that the base uses at both ends: it would reach the end it was not trained for."""
    last = module.rsplit(".", 1)[-1]
    if last not in (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS) or not base.ties_embeddings:
        return
    raise ModelError(
        f"{base.folder}: ties its input and output embeddings, and the adapter trains {module}.",
        "Keep the adapter beside the base (mix without --into), or untie the embeddings before training.",
    )


def _check_copies(base: BaseModel, copies: Mapping[str, Array]) -> None:
    """Check that the base embeddings an adapter carries along are this base's."""
    modules = {name: name.removesuffix(".weight").removesuffix(".base_layer") for name in copies}
    located = locate(base, modules.values())
    for name, array in copies.items():
        tensor = f"{located[modules[name]]}.weight"
        held = map_tensors(base.where[tensor], only=tensor)[tensor]
        if held.shape != array.shape or not _same_values(held, array):
            raise ModelError(
                f"{base.folder}: {tensor} differs from the copy in the adapter (resized or trained embeddings?).",
                _OTHER_BASE,
            )


def _same_values(held: Array, copy: Array) -> bool:
    """Tell whether a copy, cast to the dtype of what the base holds, is equal to it; a chunk of rows at a time."""
    return all(
        np.array_equal(held[row : row + _ROWS], copy[row : row + _ROWS].astype(held.dtype))
        for row in range(0, len(held), _ROWS)
    )
