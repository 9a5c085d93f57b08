"""Log-probabilities of given tokens without keeping logits over the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 128
"""Rows whose logits exist at the same time."""


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(h W^T / temperature)[y] for a frozen head W.

    The gradient with respect to h, (W[y] - softmax(...) W) / temperature, is one vector per row; it is computed
    while the logits are at hand, so that nothing of the vocabulary's size is kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> Tensor:
        logprobs, directions = [], []
        for rows, wanted in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = torch.nn.functional.linear(rows, weight, bias).float() / temperature  # (chunk, V)
            total = logits.logsumexp(-1, keepdim=True)
            logprobs.append(logits.gather(-1, wanted[:, None]).sub_(total).squeeze(-1))
            if ctx.needs_input_grad[0]:
                expected = logits.sub_(total).exp_().to(weight.dtype) @ weight  # (chunk, d)
                directions.append((weight[wanted].float() - expected.float()) / temperature)
        if directions:
            ctx.save_for_backward(torch.cat(directions))
            ctx.dtype = hidden.dtype
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (directions,) = ctx.saved_tensors
        return (grads[0][:, None] * directions).to(ctx.dtype), None, None, None, None


def token_logprobs(hidden: Tensor, head: torch.nn.Linear, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the float32 log-probability of each target under a frozen linear head. (n, d), (n,) -> (n,)."""
    result: Tensor = _TokenLogprobs.apply(hidden, head.weight, head.bias, targets, temperature)
    return result
