"""Log-probabilities of given tokens, and entropies, without keeping logits over the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rsoup.models.products import linear

CHUNK = 128
"""Rows whose logits exist at the same time."""


class _Room:
    """Where the logits of chunk after chunk lie: fresh memory of that size costs as much as the products in it."""

    def __init__(self, hidden: Tensor, weight: Tensor) -> None:
        rows = min(CHUNK, len(hidden))
        self._narrow = self._wide = None
        if weight.dtype != torch.float32:
            self._narrow = weight.new_empty(rows, len(weight))
            self._wide = weight.new_empty(rows, len(weight), dtype=torch.float32)

    def logits(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return h W^T + b in float32."""
        if self._narrow is None or self._wide is None:
            return linear(rows, weight, bias)
        narrow = self._narrow[: len(rows)]
        if bias is None:
            torch.mm(rows, weight.T, out=narrow)
        else:
            torch.addmm(bias, rows, weight.T, out=narrow)
        return self._wide[: len(rows)].copy_(narrow)

    def narrow(self, values: Tensor) -> Tensor:
        """Return values in the type of the weights, in the place of the product that is done with."""
        return values if self._narrow is None else self._narrow[: len(values)].copy_(values)


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(z)[y] and the entropy of softmax(z), with z = (h W^T + b) / temperature, for a frozen head W.

    The gradients with respect to h, (W[y] - p W) / temperature and -(p * (log p + H)) W / temperature, are one
    vector per row each; they are computed while the logits are at hand, so that nothing of the vocabulary's size is
    kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        wants_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies = [], []
        directions, spreads = [], []
        room = _Room(hidden, weight)
        for rows, wanted in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            logits = room.logits(rows, weight, bias)  # (chunk, V) in float32; changed in place from here
            logits = logits if temperature == 1 else logits.div_(temperature)
            logits.sub_(logits.amax(-1, keepdim=True))
            chosen = logits.gather(-1, wanted[:, None])
            odds = logits.exp() if wants_entropy else logits.exp_()
            total = odds.sum(-1, keepdim=True)
            logprobs.append(chosen.sub_(total.log()).squeeze(-1))
            if wants_entropy:
                logs = logits.sub_(total.log())
                entropy = -(odds * logs).sum(-1, keepdim=True) / total
                entropies.append(entropy.squeeze(-1))
                if ctx.needs_input_grad[0]:
                    slope = odds * (logs + entropy)
                    spreads.append(linear(room.narrow(slope), weight.T).float() / (-temperature * total))
            if ctx.needs_input_grad[0]:
                expected = linear(room.narrow(odds), weight.T).float() / total  # (chunk, d)
                directions.append((weight[wanted].float() - expected) / temperature)
        if directions:
            ctx.save_for_backward(torch.cat(directions), torch.cat(spreads) if spreads else None)
            ctx.dtype = hidden.dtype
        found = torch.cat(logprobs)
        return found, torch.cat(entropies) if wants_entropy else torch.zeros_like(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        directions, spreads = ctx.saved_tensors
        gradient = grads[0][:, None] * directions
        if spreads is not None:
            gradient = gradient + grads[1][:, None] * spreads
        return gradient.to(ctx.dtype), None, None, None, None, None


def token_logprobs(hidden: Tensor, head: torch.nn.Linear, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the float32 log-probability of each target under a frozen linear head. (n, d), (n,) -> (n,)."""
    logprobs: Tensor = _TokenLogprobs.apply(hidden, head.weight, head.bias, targets, temperature, False)[0]
    return logprobs


def token_logprobs_and_entropies(
    hidden: Tensor, head: torch.nn.Linear, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities as ``token_logprobs`` does, and the entropy (nats) of each row. (n,), (n,)."""
    logprobs, entropies = _TokenLogprobs.apply(hidden, head.weight, head.bias, targets, temperature, True)
    return logprobs, entropies
