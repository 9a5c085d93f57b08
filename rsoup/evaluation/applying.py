"""Make a resident base model compute what base plus adapter computes."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsoup.adapters import Adapter, Layer
from rsoup.errors import AdapterError
from rsoup.models.language_model import LanguageModel

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class Change:
    """What turns the base into another model: within ``with change:`` it is that model, afterwards the base again.

    It is worked out once and can be entered any number of times at no cost; the base comes back bit for bit.
    """

    def __init__(self) -> None:
        self._values: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # parameter, the base's own value, the other
        self._hooks: list[tuple[nn.Module, Hook]] = []
        self._handles: list[Any] = []

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Give a parameter another value."""
        self._values.append((parameter, parameter.data, value.to(parameter.dtype)))

    def hook(self, module: nn.Module, hook: Hook) -> None:
        """Change the output of a module."""
        self._hooks.append((module, hook))

    def __enter__(self) -> None:
        for parameter, _, value in self._values:
            parameter.data = value
        self._handles = [module.register_forward_hook(hook) for module, hook in self._hooks]

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for parameter, original, _ in self._values:
            parameter.data = original
        for handle in self._handles:
            handle.remove()


@torch.no_grad()
def applied(model: LanguageModel, adapter: Adapter | None) -> Change:
    """Return the change from base to base plus adapter; none for no adapter.

    Updates are folded into float32 weights. To narrower weights they are added at the layer's output, as PEFT does:
    folded in, most entries of a small update would be rounded away.
    """
    change = Change()
    if adapter is None:
        return change
    for name, array in adapter.saved.items():
        module = module_of(model, name.rpartition(".")[0], adapter.name)
        parameter = module.get_parameter(name.rpartition(".")[2])
        change.put(parameter, _fitting(model, parameter, name, _tensor(array, model), adapter))
    for name, layer in adapter.layers.items():
        module = module_of(model, name, adapter.name)
        weight, update = _update(model, name, module, layer, adapter)  # checks that it fits
        if weight.dtype == torch.float32:
            change.put(weight, weight.data + update)
        else:
            change.hook(module, _adding(model, layer))
    return change


@torch.no_grad()
def side_by_side(model: LanguageModel, adapters: list[Adapter]) -> Change:
    """Return the change to a model whose rows are split evenly among adapters: the first rows are the first's.

    A row of a batch of n * len(adapters) rows is what base plus its adapter makes of it.
    """
    change = Change()
    for adapter in adapters:
        if adapter.saved:
            raise AdapterError(
                f"The adapter {adapter.name} holds {next(iter(adapter.saved))}, trained whole (modules_to_save): it "
                "cannot run beside others.",
                "Compare soups of plain LoRA adapters, or leave --compare out.",
            )
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.layers):
        module = module_of(model, name, next(adapter.name for adapter in adapters if name in adapter.layers))
        for adapter in adapters:
            if name in adapter.layers:
                _update(model, name, module, adapter.layers[name], adapter)
        hooks = [_adding(model, adapter.layers[name]) if name in adapter.layers else None for adapter in adapters]
        change.hook(module, _each_its_own(hooks))
    return change


def _each_its_own(hooks: list[Hook | None]) -> Hook:
    """Return a hook that gives each hook its share of the rows."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shares = zip(hooks, inputs[0].chunk(len(hooks)), output.chunk(len(hooks)), strict=True)
        return torch.cat([out if own is None else own(module, (rows,), out) for own, rows, out in shares])

    return hook


def module_of(model: LanguageModel, name: str, adapter: str) -> nn.Module:
    """Return the module that an adapter changes; AdapterError if the model has none of that name."""
    try:
        module: nn.Module = model.model.get_submodule(name)
    except AttributeError as problem:
        raise AdapterError(
            f"The adapter {adapter} changes {name}, which {model.name} does not have.",
            "Give the base model that the adapter was trained on.",
        ) from problem
    return module


def _update(
    model: LanguageModel, name: str, module: nn.Module, layer: Layer, adapter: Adapter
) -> tuple[nn.Parameter, Tensor]:
    """Return a layer's weight and what the adapter adds to it, in float32."""
    update = layer.scale * (_tensor(layer.up, model) @ _tensor(layer.down, model))  # (out, in)
    turned = layer.kind == "embedding" or not isinstance(module, nn.Linear)  # Conv1D keeps (in, out)
    weight = module.get_parameter("weight")
    return weight, _fitting(model, weight, name, update.T if turned else update, adapter)


def _adding(model: LanguageModel, layer: Layer) -> Hook:
    """Return a hook that adds scale * B A x to a layer's output."""
    down, up = _tensor(layer.down, model), layer.scale * _tensor(layer.up, model)

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        low = nn.functional.embedding(inputs[0], down.T) if layer.kind == "embedding" else inputs[0].float() @ down.T
        return output + (low @ up.T).to(output.dtype)

    return hook


def _fitting(model: LanguageModel, weight: nn.Parameter, name: str, value: Tensor, adapter: Adapter) -> Tensor:
    """Return ``value`` if it has the weight's shape and the weight is not used at both ends of the model."""
    if weight is model.head.weight and weight is model.model.get_input_embeddings().weight:
        raise AdapterError(
            f"The adapter {adapter.name} changes {name}, which {model.name} uses both for its input and its output.",
            "Untie the embeddings before training, or leave them out of the adapter.",
        )
    if weight.shape != value.shape:
        raise AdapterError(
            f"The adapter {adapter.name} has {tuple(value.shape)} for {name}, the base model {tuple(weight.shape)}.",
            "Give the base model that the adapter was trained on.",
        )
    return value


def _tensor(array: np.ndarray, model: LanguageModel) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32)).to(model.device)
