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
from rsoup.evaluation.applying import LAYERS, adds_to_output, check_copies, placed_in
from rsoup.mixing.placing import Placed
from rsoup.models.language_model import LanguageModel
from rsoup.models.layout import layout_of, owner_of
from rsoup.models.rowwise import Method, RowExperts, stack


@torch.no_grad()
def row_weighted(model: LanguageModel, adapters: list[Adapter], method: Method) -> RowExperts:
    """Return experts on the model that every row of a batch mixes by weights of its own.

    AdapterError for what cannot differ from row to row. That the adapters fit together is the caller's to check
    (``mixing.compatibility.check_compatible``).
    """
    layout = layout_of(model)
    layers: dict[str, dict[int, Layer]] = {}
    for number, adapter in enumerate(adapters):
        _refuse_saved(adapter)
        check_copies(model, adapter, layout)
        for placed in placed_in(adapter, layout):
            _check(model, placed, adapter)
            layers.setdefault(placed.tensor, {})[number] = placed.layer
    stacks = {name: (owner_of(model, name)[0], stack(own, method, model.device)) for name, own in layers.items()}
    return RowExperts(stacks, method, len(adapters))


@contextmanager
def applied_in_passing(model: LanguageModel, adapter: Adapter | None) -> Iterator[None]:
    """Be base plus adapter within the block, in float32, computing what ``applying.applied`` computes, bit for bit.

    One layer at a time is folded, while it computes: for a pass now and then, where a second copy of the weights would
    be too much.
    """
    handles: list[Any] = []
    try:
        for placed in placed_in(adapter, layout_of(model)) if adapter is not None else ():
            fold, unfold = _folding(placed, model.device)
            module, _ = owner_of(model, placed.tensor)
            handles.append(module.register_forward_pre_hook(fold))
            handles.append(module.register_forward_hook(unfold, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _folding(
    placed: Placed, device: torch.device
) -> tuple[Callable[[nn.Module, tuple[Tensor, ...]], None], Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]]:
    """Return what puts an update into a layer's weight before it computes, and what takes it out afterwards."""
    originals: list[Tensor] = []
    layer = placed.layer

    def fold(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        up, down = (torch.from_numpy(np.array(own, dtype=np.float32)).to(device) for own in (layer.up, layer.down))
        update = layer.scale * (up @ down)  # (out, in)
        weight = module.get_parameter("weight")
        originals.append(weight.data)
        weight.data = weight.data + (update.T if placed.transposed else update)

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


def _check(model: LanguageModel, placed: Placed, adapter: Adapter) -> None:
    """Raise AdapterError unless the rows of a batch can have updates of their own at a tensor."""
    module, weight = owner_of(model, placed.tensor)
    if isinstance(module, LAYERS) and not adds_to_output(module, placed.layer):
        raise AdapterError(
            f"The adapter {adapter.name} updates {placed.tensor} as a parameter (target_parameters), and its layer is "
            f"no linear one ({type(module).__name__}): rows cannot have weights of their own there.",
            "Train it by target_modules, or merge one mix into the base (rsoup mix --into BASE).",
        )
    if not isinstance(module, LAYERS) or "experts" in placed.tensor.split("."):
        raise AdapterError(
            f"The adapter {adapter.name} updates {placed.tensor}, experts of a mixture or their router, which see "
            "tokens of several rows at once: rows cannot have weights of their own there.",
            "Use adapters of the attention alone, or evaluate one mix at a time.",
        )
    if weight is model.head.weight and weight is model.model.get_input_embeddings().weight:
        raise AdapterError(
            f"The adapter {adapter.name} changes {placed.tensor}, which {model.name} uses both for its input and its "
            "output.",
            "Untie the embeddings before training, or leave them out of the adapter.",
        )
