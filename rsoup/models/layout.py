"""The tensors of a model in memory, as adapters are placed in it."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from rsoup.mixing.placing import Layout
from rsoup.models.language_model import LanguageModel


def layout_of(model: LanguageModel) -> Layout:
    """Return the layout of a model in memory; tied tensors have each of their names."""
    shapes = {name: tuple(value.shape) for name, value in model.model.named_parameters(remove_duplicate=False)}

    def turned(tensor: str) -> bool:
        return isinstance(owner_of(model, tensor)[0], Conv1D)

    def turned_experts(tensor: str) -> bool:
        return bool(getattr(owner_of(model, tensor)[0], "is_transposed", False))

    return Layout(model.name, shapes, turned, turned_experts)


def owner_of(model: LanguageModel, tensor: str) -> tuple[nn.Module, nn.Parameter]:
    """Return the module that has a tensor, and the tensor."""
    path, _, last = tensor.rpartition(".")
    module: nn.Module = model.model.get_submodule(path)
    return module, module.get_parameter(last)
