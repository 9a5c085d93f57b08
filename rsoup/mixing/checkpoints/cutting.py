"""The low-rank part of the difference of two models, layer by layer."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array
from rsoup.errors import ModelError
from rsoup.mixing.changes import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TRANSPOSED_MODELS
from rsoup.mixing.checkpoints import reading
from rsoup.mixing.checkpoints.alignment import Target, align
from rsoup.mixing.checkpoints.models import Model
from rsoup.mixing.checkpoints.reading import Files, chunk_count
from rsoup.mixing.methods import Options
from rsoup.mixing.updates import cut_matrix, squared_norm

_POSITIONS = ("wpe", "embed_positions", "position_embeddings", "token_type_embeddings")
_EMBEDDINGS = (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS, *_POSITIONS)
_ROUTERS = ("gate", "router", "shared_expert_gate")
_TRUNKS = {"h": "transformer.h", "layers": "model.layers"}
"""How modules are called in memory whose checkpoint leaves the trunk's own name out."""
_LAYER = "layer"


def cut_difference(
    own: Model, root: Model, options: Options, dtype: np.dtype[Any]
) -> tuple[dict[str, Layer], dict[str, Any]]:
    """Cut what ``own`` adds to each layer of ``root`` to a rank; return the layers, and what there is to say.

    The facts are those of ``Extraction``, and under ``still`` the layers that do not differ. One layer is in memory at
    a time.
    """
    targets = [target for target in align([root, own], common_vocabulary=True).targets if not target.copied]
    has_experts = any(".experts." in target.name for target in targets)
    transposed = own.config.get("model_type") in TRANSPOSED_MODELS
    layers: dict[str, Layer] = {}
    shares: dict[str, float] = {}
    still: list[str] = []
    squares: dict[str, list[float]] = defaultdict(list)
    files = Files()
    files.open(targets)
    try:
        for target in targets:
            kind = _kind(target, has_experts)
            if kind != _LAYER:
                squares[kind].append(_squared(files, target))
                continue
            module = _module(target.name)
            cut = _cut(files, target, transposed, options, dtype)
            if cut is None:
                still.append(module)
                continue
            layers[module], shares[module], total = cut
            squares[_LAYER].append(total)
    finally:
        files.close()
    if not layers:
        raise ModelError(f"{own.source} does not differ from {root.source} in any layer.", "Give a model made from it.")
    return layers, _facts(layers, shares, squares, still)


def _cut(
    files: Files, target: Target, transposed: bool, options: Options, dtype: np.dtype[Any]
) -> tuple[Layer, float, float] | None:
    """Return a difference as a layer, the share of its squared norm that it holds, and that; None for no difference."""
    matrix = _difference(files, target)
    total = squared_norm(matrix)
    if not math.isfinite(total):
        raise ModelError(f"{target.name} differs by NaN or infinity.", "Check both models for such values.")
    if not total:
        return None
    update = cut_matrix(matrix.T if transposed else matrix, options.rank or 1, options.energy, options.seed)
    layer = Layer("linear", update.down.astype(dtype), update.up.astype(dtype), 1.0)
    return layer, 1.0 - update.discarded, total


def _facts(
    layers: dict[str, Layer], shares: dict[str, float], squares: dict[str, list[float]], still: list[str]
) -> dict[str, Any]:
    kept = math.fsum(share * total for share, total in zip(shares.values(), squares[_LAYER], strict=True))
    everything = math.fsum(itertools.chain.from_iterable(squares.values()))
    return {
        "layers": shares,
        "ranks": {module: layer.rank for module, layer in layers.items()},
        "captured": kept / math.fsum(squares[_LAYER]),
        "of_all": kept / everything,
        "left_out": {
            kind: {"tensors": len(own), "share": math.fsum(own) / everything}
            for kind, own in sorted(squares.items())
            if kind != _LAYER
        },
        "still": still,
    }


def _kind(target: Target, has_experts: bool) -> str:
    """Return what a tensor is: a layer that an adapter can update, or the kind that is left out."""
    parts = target.name.split(".")
    last = parts[-2] if len(parts) > 1 else ""
    if last in _EMBEDDINGS or "emb" in last:
        return "embeddings"
    if "experts" in parts or len(target.shape) > 2:
        return "experts and other stacks of matrices"
    if has_experts and last in _ROUTERS:
        return "routers"
    if parts[-1] == "bias":
        return "biases"
    if len(target.shape) < 2:
        return "norms and other vectors"
    return _LAYER if parts[-1] == "weight" else "bare parameters"


def _module(tensor: str) -> str:
    """Return what PEFT calls the module of a weight."""
    name = tensor.removesuffix(".weight")
    head, _, rest = name.partition(".")
    return f"{_TRUNKS[head]}.{rest}" if head in _TRUNKS else name


def _difference(files: Files, target: Target) -> Array:
    """Return a tensor of the model minus that of its base, in float32."""
    whole = np.empty(target.count, np.float32)
    for number in range(chunk_count(target.count)):
        base, own = files.inputs(target, number)
        start = number * reading.CHUNK
        np.subtract(own, base, out=whole[start : start + len(own)])
    return whole.reshape(target.shape)


def _squared(files: Files, target: Target) -> float:
    """Return the squared norm of a tensor's difference."""
    total = 0.0
    for number in range(chunk_count(target.common)):
        base, own = files.inputs(target, number)
        delta = own.astype(np.float64) - base
        total += float(delta @ delta)
    return total
