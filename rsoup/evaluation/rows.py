"""Many mixes on one resident base: each row of a batch its own, or one now and then without a copy of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsoup.adapters import Adapter, Layer
from rsoup.errors import AdapterError
from rsoup.evaluation.applying import module_of
from rsoup.models.language_model import LanguageModel
from rsoup.models.rowwise import Method, RowExperts, stack


@torch.no_grad()
def row_weighted(model: LanguageModel, adapters: list[Adapter], method: Method) -> RowExperts:
    """Return experts on the model that every row of a batch mixes by weights of its own.

    AdapterError for what cannot differ from row to row. That the adapters fit together is the caller's to check
    (``mixing.compatibility.check_compatible``).
    """
    stacks = {}
    for adapter in adapters:
        _refuse_saved(adapter)
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.layers):
        own = {place: adapter.layers[name] for place, adapter in enumerate(adapters) if name in adapter.layers}
        for place, layer in own.items():
            _check(model, name, layer, adapters[place])
        stacks[name] = module_of(model, name, adapters[next(iter(own))].name), stack(own, method, model.device)
    return RowExperts(stacks, method, len(adapters))


@contextmanager
def applied_in_passing(model: LanguageModel, adapter: Adapter | None) -> Iterator[None]:
    """Be base plus adapter within the block, in float32, computing what ``applying.applied`` computes, bit for bit.

    One layer at a time is folded, while it computes: for a pass now and then, where a second copy of the weights would
    be too much.
    """
    handles: list[Any] = []
    try:
        for name, layer in adapter.layers.items() if adapter is not None else ():
            assert adapter is not None
            fold, unfold = _folding(layer, model.device)
            module = module_of(model, name, adapter.name)
            handles.append(module.register_forward_pre_hook(fold))
            handles.append(module.register_forward_hook(unfold, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _folding(
    layer: Layer, device: torch.device
) -> tuple[Callable[[nn.Module, tuple[Tensor, ...]], None], Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]]:
    """Return what puts an update into a layer's weight before it computes, and what takes it out afterwards."""
    originals: list[Tensor] = []

    def fold(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        up, down = (torch.from_numpy(np.array(own, dtype=np.float32)).to(device) for own in (layer.up, layer.down))
        update = layer.scale * (up @ down)  # (out, in)
        weight = module.get_parameter("weight")
        originals.append(weight.data)
        weight.data = weight.data + (update.T if _is_turned(layer, module) else update)

    def unfold(module: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        if originals:  # folding may have failed
            module.get_parameter("weight").data = originals.pop()

    return fold, unfold


def _refuse_saved(adapter: Adapter) -> None:
    if adapter.saved:
        raise AdapterError(
            f"The adapter {adapter.name} holds {next(iter(adapter.saved))}, trained whole (modules_to_save): rows of "
            "one batch cannot each have their own.",
            "Merge one mix into the base (rsoup mix --into BASE), and take that for the model.",
        )


def _check(model: LanguageModel, name: str, layer: Layer, adapter: Adapter) -> None:
    """Raise AdapterError unless the rows of a batch can have updates of their own at a module."""
    if "experts" in name.split("."):
        raise AdapterError(
            f"The adapter {adapter.name} changes {name}, an expert of a mixture, which sees tokens of several rows at "
            "once: rows cannot have weights of their own there.",
            "Use adapters of the attention alone, or evaluate one mix at a time.",
        )
    module = module_of(model, name, adapter.name)
    weight = module.get_parameter("weight")
    if weight is model.head.weight and weight is model.model.get_input_embeddings().weight:
        raise AdapterError(
            f"The adapter {adapter.name} changes {name}, which {model.name} uses both for its input and its output.",
            "Untie the embeddings before training, or leave them out of the adapter.",
        )
    shape = layer.shape[::-1] if _is_turned(layer, module) else layer.shape
    if weight.shape != shape:
        raise AdapterError(
            f"The adapter {adapter.name} has {shape} for {name}, the base model {tuple(weight.shape)}.",
            "Give the base model that the adapter was trained on.",
        )


def _is_turned(layer: Layer, module: nn.Module) -> bool:
    """Tell whether a module keeps its weight as (in, out), as embeddings and GPT-2's Conv1D do."""
    return layer.kind == "embedding" or not isinstance(module, nn.Linear)
