"""Make a resident base model compute what base plus adapter computes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rsoup.adapters import Adapter, Layer
from rsoup.adapters.layers import TOKEN_ROWS
from rsoup.errors import AdapterError, RsoupError
from rsoup.mixing.changes import saved_tensor
from rsoup.mixing.placing import OTHER_BASE, Layout, Placed, place
from rsoup.mixing.tying import end_of
from rsoup.models.language_model import LanguageModel
from rsoup.models.layout import layout_of, owner_of

LAYERS = (nn.Linear, nn.Embedding, Conv1D)
"""The modules to whose output an update can be added."""

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class Change:
    """What turns the base into another model: within ``with change:`` it is that model, afterwards the base again.

    It is worked out once and can be entered any number of times at no cost; the base comes back bit for bit.
    """

    def __init__(self) -> None:
        self._values: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # parameter, the base's own value, the other
        self._weights: list[tuple[nn.Module, nn.Parameter, nn.Parameter]] = []  # module, shared weight, its own
        self._hooks: list[tuple[nn.Module, Hook]] = []
        self._handles: list[Any] = []

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Give a parameter another value."""
        self._values.append((parameter, parameter.data, value.to(parameter.dtype)))

    def hook(self, module: nn.Module, hook: Hook) -> None:
        """Change the output of a module."""
        self._hooks.append((module, hook))

    def untie(self, module: nn.Module, value: Tensor) -> None:
        """Give a module a weight of its own in the place of one that it shares."""
        shared = module.get_parameter("weight")
        own = nn.Parameter(value.to(shared.dtype), requires_grad=False)
        self._weights.append((module, shared, own))

    def __enter__(self) -> None:
        for parameter, _, value in self._values:
            parameter.data = value
        for module, _, own in self._weights:
            module.weight = own
        self._handles = [module.register_forward_hook(hook) for module, hook in self._hooks]

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for parameter, original, _ in self._values:
            parameter.data = original
        for module, shared, _ in self._weights:
            module.weight = shared
        for handle in self._handles:
            handle.remove()


@torch.no_grad()
def applied(model: LanguageModel, adapter: Adapter | None) -> Change:
    """Return the change from base to base plus adapter; none for no adapter.

    Updates are folded into float32 weights. To narrower weights of layers they are added at the layer's output, as PEFT
    does: folded in, most entries of a small update would be rounded away. Those of experts, which are no layers, and of
    the output layer, whose weights are read in several places, are folded in float32 and cast once.
    """
    change = Change()
    if adapter is None:
        return change
    layout = layout_of(model)
    check_copies(model, adapter, layout)
    folded: dict[str, Tensor] = {}
    for placed in placed_in(adapter, layout):
        module, parameter = owner_of(model, placed.tensor)
        beside = parameter.dtype != torch.float32 or is_split(parameter)
        if beside and adds_to_output(module, placed.layer) and module is not model.head:
            change.hook(module, _adding(parameter, placed.layer))
            continue
        _refuse_split(model, placed.tensor, adapter)
        weight = folded.setdefault(placed.tensor, parameter.data.float().clone())
        update = _update(parameter, placed)
        rows = weight.view(-1, weight.shape[-1])
        rows[placed.start : placed.start + len(update)] += update
    for name, array in adapter.saved.items():
        tensor, value = _saved(model, adapter, name, array, layout)
        folded[tensor] = value
    for tensor, value in folded.items():
        _put(model, change, tensor, value, adapter)
    return change


@torch.no_grad()
def side_by_side(model: LanguageModel, adapters: list[Adapter]) -> Change:
    """Return the change to a model whose rows are split evenly among adapters: the first rows are the first's.

    A row of a batch of n * len(adapters) rows is what base plus its adapter makes of it.
    """
    change = Change()
    layout = layout_of(model)
    hooks: dict[str, list[Hook | None]] = {}
    for index, adapter in enumerate(adapters):
        if adapter.saved:
            raise AdapterError(
                f"The adapter {adapter.name} holds {next(iter(adapter.saved))}, trained whole (modules_to_save): it "
                "cannot run beside others.",
                "Compare soups of plain LoRA adapters, or leave --compare out.",
            )
        for placed in placed_in(adapter, layout):
            if not adds_to_output(owner_of(model, placed.tensor)[0], placed.layer):
                raise AdapterError(
                    f"The adapter {adapter.name} updates {placed.tensor}, which is no linear layer (experts in one "
                    "tensor, or their router): it cannot run beside others.",
                    "Compare soups of adapters of linear layers, or leave --compare out.",
                )
            parameter = owner_of(model, placed.tensor)[1]
            hooks.setdefault(placed.tensor, [None] * len(adapters))[index] = _adding(parameter, placed.layer)
    for tensor, own in hooks.items():
        change.hook(owner_of(model, tensor)[0], _each_its_own(own))
    return change


def adds_to_output(module: nn.Module, layer: Layer) -> bool:
    """Tell whether an update can be added to what a module puts out, beside what it does with its weight.

    That of a bare weight, (rows, columns) as it lies there, is one of the layer only where the layer is linear.
    """
    return isinstance(module, nn.Linear if layer.bare else LAYERS)


def placed_in(adapter: Adapter, layout: Layout) -> list[Placed]:
    """Return where an adapter's updates lie; AdapterError, with its name, if they do not fit."""
    try:
        return place(adapter.layers, layout)
    except RsoupError as problem:
        raise AdapterError(f"The adapter {adapter.name}: {problem.message}", problem.hint) from problem


def check_copies(model: LanguageModel, adapter: Adapter, layout: Layout) -> None:
    """Check that the base embeddings an adapter carries along are this model's."""
    for name, array in adapter.copies.items():
        tensor = layout.find(name.replace(".base_layer.", "."))
        held = owner_of(model, tensor)[1] if tensor else None
        copied = torch.from_numpy(np.array(array, dtype=np.float32))
        if held is None or held.shape != copied.shape or not torch.equal(held.cpu(), copied.to(held.dtype)):
            raise AdapterError(
                f"The adapter {adapter.name}: its copy of {name} differs from what {model.name} has (resized or "
                "trained embeddings?).",
                OTHER_BASE,
            )


def _saved(model: LanguageModel, adapter: Adapter, name: str, array: np.ndarray, layout: Layout) -> tuple[str, Tensor]:
    """Return a tensor of the model and what an adapter that trained it, or rows of it, makes of it."""
    try:
        tensor, rows = saved_tensor(name, tuple(array.shape), adapter.config, layout)
    except RsoupError as problem:
        raise AdapterError(f"The adapter {adapter.name}: {problem.message}", problem.hint) from problem
    _refuse_split(model, tensor, adapter)
    parameter = owner_of(model, tensor)[1]
    value = _tensor(array, parameter)
    if rows is None:
        return tensor, value
    whole = parameter.data.clone()
    whole[list(rows)] = value.to(whole.dtype)
    return tensor, whole


def _put(model: LanguageModel, change: Change, tensor: str, value: Tensor, adapter: Adapter) -> None:
    """Give a tensor its value; one that the model uses at both ends changes at the end that was trained alone.

    Rows of tokens that were trained in the input embeddings alone belong to both ends, as PEFT has it.
    """
    module, parameter = owner_of(model, tensor)
    shared = model.head.weight is model.model.get_input_embeddings().weight
    rows = [name.partition(f".{TOKEN_ROWS}")[0] for name in adapter.saved if TOKEN_ROWS in name]
    both = module is model.model.get_input_embeddings() and [end_of(name) for name in rows] == ["input"]
    if shared and parameter is model.head.weight and not both:
        change.untie(module, value)
    else:
        change.put(parameter, value)


def _each_its_own(hooks: list[Hook | None]) -> Hook:
    """Return a hook that gives each hook its share of the rows."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shares = zip(hooks, inputs[0].chunk(len(hooks)), output.chunk(len(hooks)), strict=True)
        return torch.cat([out if own is None else own(module, (rows,), out) for own, rows, out in shares])

    return hook


def is_split(parameter: Tensor) -> bool:
    """Tell whether a parameter is a part of one that is split over processes."""
    return hasattr(parameter, "to_local")


def _refuse_split(model: LanguageModel, tensor: str, adapter: Adapter) -> None:
    if is_split(owner_of(model, tensor)[1]):
        raise AdapterError(
            f"The adapter {adapter.name} changes {tensor} itself, no layer's output, and that is split over processes.",
            "Set model.placement to spread or auto.",
        )


def _update(parameter: Tensor, placed: Placed) -> Tensor:
    """Return what is added to the rows of a parameter, in float32."""
    layer = placed.layer
    update = layer.scale * (_tensor(layer.up, parameter) @ _tensor(layer.down, parameter))  # (out, in)
    return update.T if placed.transposed else update


def _adding(parameter: Tensor, layer: Layer) -> Hook:
    """Return a hook that adds scale * B A x to a layer's output; some embeddings scale what they look up (Gemma)."""
    down, up = _tensor(layer.down, parameter), layer.scale * _tensor(layer.up, parameter)

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer.kind == "embedding":
            low = nn.functional.embedding(inputs[0], down.T) * getattr(module, "embed_scale", 1.0)
        else:
            low = inputs[0].float() @ down.T
        return output + (low @ up.T).to(output.dtype)

    return hook


def _tensor(array: np.ndarray, parameter: Tensor) -> Tensor:
    """Return an array in float32 where a parameter lies."""
    return torch.from_numpy(np.array(array, dtype=np.float32)).to(parameter.device)
