"""Make a resident base model compute what base plus adapter computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsoup.adapters import Adapter, Layer
from rsoup.errors import AdapterError
from rsoup.models.language_model import LanguageModel, folded


@contextmanager
def applied(model: LanguageModel, adapter: Adapter) -> Iterator[None]:
    """Be base plus adapter within the block; afterwards the base is back, bit for bit.

    Updates are folded into float32 weights. To narrower weights they are added at the layer's output, as PEFT does:
    folded in, most entries of a small update would be rounded away.
    """
    with ExitStack() as stack:
        for name, array in adapter.saved.items():
            module = _module(model, name.rpartition(".")[0], adapter.name)
            parameter = module.get_parameter(name.rpartition(".")[2])
            stack.enter_context(_replaced(parameter, _fitting(model, parameter, name, _tensor(array, model), adapter)))
        layers = [(name, _module(model, name, adapter.name), layer) for name, layer in adapter.layers.items()]
        if model.model.dtype == torch.float32:
            stack.enter_context(folded(_update(model, *layer, adapter) for layer in layers))
        else:
            for name, module, layer in layers:
                _update(model, name, module, layer, adapter)  # checks that it fits
                stack.callback(module.register_forward_hook(_adding(model, layer)).remove)
        yield


def _update(
    model: LanguageModel, name: str, module: nn.Module, layer: Layer, adapter: Adapter
) -> tuple[nn.Parameter, Tensor]:
    """Return a layer's weight and what the adapter adds to it, in float32."""
    update = layer.scale * (_tensor(layer.up, model) @ _tensor(layer.down, model))  # (out, in)
    turned = layer.kind == "embedding" or not isinstance(module, nn.Linear)  # Conv1D keeps (in, out)
    weight = module.get_parameter("weight")
    return weight, _fitting(model, weight, name, update.T if turned else update, adapter)


def _adding(model: LanguageModel, layer: Layer) -> Any:
    """Return a hook that adds scale * B A x to a layer's output."""
    down, up = _tensor(layer.down, model), layer.scale * _tensor(layer.up, model)

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        low = nn.functional.embedding(inputs[0], down.T) if layer.kind == "embedding" else inputs[0].float() @ down.T
        return output + (low @ up.T).to(output.dtype)

    return hook


@contextmanager
def _replaced(parameter: nn.Parameter, value: Tensor) -> Iterator[None]:
    original = parameter.data
    parameter.data = value.to(parameter.dtype)
    try:
        yield
    finally:
        parameter.data = original


def _module(model: LanguageModel, name: str, adapter: str) -> nn.Module:
    try:
        module: nn.Module = model.model.get_submodule(name)
    except AttributeError as problem:
        raise AdapterError(
            f"The adapter {adapter} changes {name}, which {model.name} does not have.",
            "Give the base model that the adapter was trained on.",
        ) from problem
    return module


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
