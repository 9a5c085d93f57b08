"""The low-rank part of the difference of two models, layer by layer."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array
from rsoup.errors import ModelError
from rsoup.mixing.base import CONV1D_MODELS, INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from rsoup.mixing.checkpoints import reading
from rsoup.mixing.checkpoints.alignment import Target, align
from rsoup.mixing.checkpoints.models import Model
from rsoup.mixing.checkpoints.reading import SINGLE, Files, chunk_count
from rsoup.mixing.chunks import THREADS
from rsoup.mixing.methods import Options
from rsoup.mixing.parallel import parallel
from rsoup.mixing.updates import cut_matrix, squared_norm

_POSITIONS = ("wpe", "embed_positions", "position_embeddings", "token_type_embeddings")
_EMBEDDINGS = (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS, *_POSITIONS)
_ROUTERS = ("gate", "router", "shared_expert_gate")
_PARTS_OF_EXPERTS = {
    "mlp.experts.0.gate_proj.weight": ("gate_proj", "up_proj", "down_proj"),
    "block_sparse_moe.experts.0.w1.weight": ("w1", "w2", "w3"),
}
"""By a tensor that tells them: the names that PEFT, where experts are one tensor in memory, takes for theirs alone."""
_TRUNKS = {"h": "transformer.h", "layers": "model.layers"}
"""How modules are called in memory whose checkpoint leaves the trunk's own name out."""
_LAYER = "layer"
MEMORY = 512 << 20
"""Bytes of the differences that are cut at the same time."""


def cut_difference(
    own: Model, root: Model, options: Options, dtype: np.dtype[Any]
) -> tuple[dict[str, Layer], dict[str, Any]]:
    """Cut what ``own`` adds to each layer of ``root`` to a rank; return the layers, and what there is to say.

    The facts are those of ``Extraction``, and under ``still`` the layers that do not differ. Layers are cut side by
    side as far as ``MEMORY`` allows.
    """
    targets = [target for target in align([root, own], common_vocabulary=True).targets if not target.copied]
    has_experts = any(".experts." in target.name for target in targets)
    parts = _parts_of_experts([target.name for target in targets])
    transposed = own.config.get("model_type") in CONV1D_MODELS
    by_kind: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        by_kind[_kind(target, parts, has_experts=has_experts)].append(target)
    weights = by_kind.pop(_LAYER, [])
    largest = max((target.count for target in weights), default=1) * SINGLE.itemsize
    with Files() as files:
        files.open(targets)
        cuts = parallel(
            lambda target: _cut(files, target, transposed, options, dtype),
            weights,
            at_most=max(1, min(THREADS, MEMORY // largest)),
        )
        left_out = {kind: [_squared(files, target) for target in own] for kind, own in sorted(by_kind.items())}
    found = {_module(target.name): cut for target, cut in zip(weights, cuts, strict=True)}
    layers = {module: cut.layer for module, cut in found.items() if cut}
    if not layers:
        raise ModelError(f"{own.source} does not differ from {root.source} in any layer.", "Give a model made from it.")
    return layers, _facts(found, left_out)


class _Cut(NamedTuple):
    """A difference as a layer, the share of its squared norm that this holds, and that squared norm."""

    layer: Layer
    share: float
    square: float


def _cut(files: Files, target: Target, transposed: bool, options: Options, dtype: np.dtype[Any]) -> _Cut | None:
    """Return the difference of a layer, cut; None if there is none."""
    matrix = _difference(files, target)
    total = _finite(target, squared_norm(matrix))
    if not total:
        return None
    update = cut_matrix(matrix.T if transposed else matrix, options.rank or 1, options.energy, options.seed)
    layer = Layer("linear", update.down.astype(dtype), update.up.astype(dtype), 1.0)
    return _Cut(layer, 1.0 - update.discarded, total)


def _facts(found: Mapping[str, _Cut | None], left_out: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    cuts = {module: cut for module, cut in found.items() if cut}
    kept = math.fsum(cut.share * cut.square for cut in cuts.values())
    in_layers = math.fsum(cut.square for cut in cuts.values())
    everything = math.fsum([in_layers, *itertools.chain.from_iterable(left_out.values())])
    return {
        "layers": {module: cut.share for module, cut in cuts.items()},
        "ranks": {module: cut.layer.rank for module, cut in cuts.items()},
        "captured": kept / in_layers,
        "of_all": kept / everything,
        "left_out": {
            kind: {"tensors": len(squares), "share": math.fsum(squares) / everything}
            for kind, squares in left_out.items()
        },
        "still": [module for module, cut in found.items() if not cut],
    }


def _parts_of_experts(names: Sequence[str]) -> tuple[str, ...]:
    return next((own for told, own in _PARTS_OF_EXPERTS.items() if any(name.endswith(told) for name in names)), ())


def _kind(target: Target, parts_of_experts: Sequence[str], *, has_experts: bool) -> str:
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
    named = "layers that are called as parts of experts" if last in parts_of_experts else _LAYER
    return named if parts[-1] == "weight" else "bare parameters"


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
    return _finite(target, total)


def _finite(target: Target, squared: float) -> float:
    if not math.isfinite(squared):
        raise ModelError(f"{target.name} differs by NaN or infinity.", "Check both models for such values.")
    return squared
