"""float32 matrix products by oneDNN where torch's usual library leaves a processor's widest instructions unused.

torch multiplies float32 matrices with MKL, which takes AVX2 on the processors of other makers; oneDNN, which torch
brings for narrower types, takes AVX-512 there: twice as many products a second on an AMD EPYC. Sums are float32 either
way, in another order.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FEWEST_ROWS, FEWEST_WEIGHTS = 8, 1 << 16
"""Below these, calling oneDNN takes longer than it saves."""


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
