"""Linear layers with LoRA factors, in fewer passes over their rows than PEFT makes.

    y = W x + b + s B (A x)

PEFT casts x to the type of the factors and adds two float32 products to the base's. Here both products are done in the
type of the base's weights, and added up within the matrix product; sums are float32 inside either way. Of the rows,
x and A x are kept for the gradient, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

from rsoup.models import products


def shorten(layers: Iterable[LoraLayer]) -> None:
    """Let layers of PEFT compute as described above wherever they are plain: linear, not quantised, no dropout."""
    for layer in layers:
        base = layer.get_base_layer()
        if type(layer) is Linear and type(base) in (nn.Linear, products.Linear) and "forward" not in vars(base):
            layer.forward = MethodType(_forward, layer)


@contextmanager
def settled(layers: Iterable[Any], adapter: str) -> Iterator[None]:
    """Cast the factors of such layers once within the block, in which nothing changes them or asks for gradients."""
    own = [layer for layer in layers if "forward" in vars(layer) and _plain(layer) == adapter]
    usual = [layer.forward for layer in own]
    try:
        for layer in own:
            layer.forward = _settled(layer, adapter)
        yield
    finally:
        for layer, forward in zip(own, usual, strict=True):
            layer.forward = forward


def _settled(layer: Any, adapter: str) -> Callable[[Tensor], Tensor]:
    base, scale = layer.get_base_layer(), layer.scaling[adapter]
    kind = base.weight.dtype
    down = layer.lora_A[adapter].weight.detach().to(kind).T
    up = (scale * layer.lora_B[adapter].weight.detach()).to(kind).T

    def forward(rows: Tensor) -> Tensor:
        flat = rows.flatten(0, -2)
        found = base(flat).addmm_(flat @ down, up)
        return found.view(*rows.shape[:-1], -1)

    return forward


def _forward(layer: Any, rows: Tensor, *more: Any, **options: Any) -> Tensor:
    adapter = _plain(layer)
    if adapter is None or more or options or rows.dtype != layer.get_base_layer().weight.dtype:
        usual: Tensor = Linear.forward(layer, rows, *more, **options)
        return usual
    base = layer.get_base_layer()
    factors = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    found: Tensor = _Adapted.apply(rows, base.weight, base.bias, *factors, layer.scaling[adapter])
    return found


def _plain(layer: Any) -> str | None:
    """Return the one adapter that a layer computes with, if that is what is described above."""
    active = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1:
        return None
    dropout = layer.lora_dropout[active[0]]
    drops = dropout.training and isinstance(dropout, nn.Dropout)
    narrows = torch.is_autocast_enabled(layer.get_base_layer().weight.device.type)
    return None if drops or narrows else str(active[0])


class _Adapted(torch.autograd.Function):
    """W x + b + s B (A x) for a frozen W; A (r, in), B (out, r)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        flat = rows.flatten(0, -2)
        down, up = down.to(rows.dtype), (scale * up).to(rows.dtype)
        low = flat @ down.T  # (n, r)
        found = products.linear(flat, weight, bias).addmm_(low, up.T)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale = scale
        return found.view(*rows.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, low, weight, down, up = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        lowered = gradient @ up  # (n, r), s B^T of the gradient
        of_rows = None
        if ctx.needs_input_grad[0]:
            of_rows = products.linear(gradient, weight.T).addmm_(lowered, down).view(*gradients[0].shape[:-1], -1)
        of_down = (lowered.T @ flat).float()
        of_up = (gradient.T @ low).float().mul_(ctx.scale)
        return of_rows, None, None, of_down, of_up, None
