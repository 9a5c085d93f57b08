"""Matrix products by oneDNN where torch's usual ways leave a processor's instructions or its memory's pace unused.

torch multiplies float32 matrices with MKL, which takes AVX2 on the processors of other makers; oneDNN, which torch
brings for narrower types, takes AVX-512 there: twice as many products a second on an AMD EPYC. Sums are float32 either
way, in another order.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FEWEST_ROWS, FEWEST_WEIGHTS = 8, 1 << 16
"""Below these, calling oneDNN takes longer than it saves."""
FEW_ROWS = 64
"""Rows that weights are packed for; of other numbers the products are as fast."""


@cache
def is_wide() -> bool:
    """Tell whether oneDNN multiplies faster here: a processor with AVX-512 that is not of MKL's maker."""
    has = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    if (
        not has
        or torch.backends.cpu.get_cpu_capability() != "AVX512"
        or not hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    told = Path("/proc/cpuinfo")
    return told.is_file() and "GenuineIntel" not in told.read_text(encoding="utf-8", errors="replace")


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows W^T + b for a frozen W, by whichever library is faster. (..., in), (out, in) -> (..., out)."""
    if _suits(rows, weight):
        product: Tensor = _Product.apply(rows, weight, bias)
        return product
    return nn.functional.linear(rows, weight, bias)


def _suits(rows: Tensor, weight: Tensor) -> bool:
    if not (rows.dtype == weight.dtype == torch.float32 and rows.is_cpu and is_wide()):
        return False
    large = weight.numel() >= FEWEST_WEIGHTS and rows.numel() >= FEWEST_ROWS * rows.shape[-1]
    return large and not weight.requires_grad and not torch.is_autocast_enabled("cpu")


class Linear(nn.Linear):
    """A frozen linear layer that multiplies by whichever library is faster."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows W^T + b."""
        return linear(rows, self.weight, self.bias)


def widen(model: nn.Module) -> None:
    """Let the linear layers of a model multiply by whichever library is faster."""
    if is_wide():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


@cache
def packs() -> bool:
    """Tell whether oneDNN multiplies bfloat16 here, and so can have weights in the order in which it reads them."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Multiply by copies of the frozen bfloat16 weights, in the order in which oneDNN reads them, within the block.

    Products are the same to rounding; those of few rows, as in decoding, take a quarter less time. The copies take the
    memory of the weights once more, within the block.
    """
    layers: list[Any] = [layer for layer in model.modules() if packs() and _packable(layer)]
    copies: dict[int, Tensor] = {}  # tied weights are one
    try:
        for layer in layers:
            key = id(layer.weight)
            if key not in copies:
                copies[key] = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), FEW_ROWS)
            layer.forward = partial(_multiplied, weight=copies[key], bias=layer.bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _packable(layer: nn.Module) -> bool:
    if type(layer) not in (nn.Linear, Linear) or "forward" in vars(layer) or torch.is_autocast_enabled("cpu"):
        return False
    weight = layer.weight
    frozen = weight.is_cpu and weight.dtype == torch.bfloat16 and not weight.requires_grad
    return frozen and weight.numel() >= FEWEST_WEIGHTS and weight.is_contiguous()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _multiplied(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return _multiplied(gradients[0].contiguous(), weight.T, None), None, None


def _multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product
