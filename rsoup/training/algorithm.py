"""The formulas of PPO as pure functions on tensors.

Shapes: B completions of at most T tokens, (B, T); ``mask`` is true on the tokens that exist. Sources: PPO
(Schulman et al., 2017), GAE (Schulman et al., 2016), KL penalty and its controller (Ziegler et al., 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.recipe import PPOSection

Sum = Callable[[Tensor], Tensor]
"""Adds a scalar up over the processes that train together; a process alone leaves it as it is."""


def alone(value: Tensor) -> Tensor:
    """Be the sum over one process."""
    return value


def masked_mean(values: Tensor, mask: Tensor, total: Sum = alone) -> Tensor:
    """Return the mean over the tokens that exist, in all processes that ``total`` sums over; 0 if there are none."""
    return total((values * mask).sum()) / total(mask.sum()).clamp(min=1)


def token_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Return -kl_coef * (log pi - log pi_ref) per token, plus the score (B,) on the last token. (B, T)."""
    rewards = -kl_coef * (logprobs - ref_logprobs) * mask
    last = mask.sum(-1) - 1
    rewards[torch.arange(len(rewards)), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Return A_t = sum_k (gamma * lambda)^k delta_{t+k} with delta_t = r_t + gamma V_{t+1} - V_t. (B, T).

    The value after a completion's last token is 0; positions outside the mask give 0.
    """
    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = (rewards + gamma * following - values) * mask
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for step in reversed(range(deltas.shape[1])):
        running = deltas[:, step] + gamma * gae_lambda * running
        advantages[:, step] = running
    return advantages


def whiten(values: Tensor, mask: Tensor, total: Sum = alone) -> Tensor:
    """Shift and scale the tokens that exist, in all processes, to mean 0 and variance 1."""
    mean = masked_mean(values, mask, total)
    variance = masked_mean((values - mean) ** 2, mask, total)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


@dataclass(frozen=True)
class Losses:
    """Losses of a mini-batch, how much of it was clipped (shares), and its mean entropy; scalars."""

    policy: Tensor
    value: Tensor
    clipped: Tensor
    clipped_value: Tensor
    entropy: Tensor | None = None

    def total(self, ppo: PPOSection) -> Tensor:
        """Return what is minimised."""
        loss = self.policy + ppo.vf_coef * self.value
        return loss if self.entropy is None else loss - ppo.entropy_coef * self.entropy


def ppo_losses(
    logprobs: Tensor,
    values: Tensor,
    old_logprobs: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    mask: Tensor,
    ppo: PPOSection,
    *,
    entropies: Tensor | None = None,
    tokens: Tensor | None = None,
) -> Losses:
    """Return the clipped policy and value losses, averaged over tokens. All inputs (B, T).

    ``tokens`` is what sums are divided by: the tokens of the whole mini-batch, if this is a part of one.
    """
    count = mask.sum() if tokens is None else tokens
    ratio = torch.exp(logprobs - old_logprobs)
    surrogate = -advantages * ratio
    surrogate_clipped = -advantages * ratio.clamp(1 - ppo.cliprange, 1 + ppo.cliprange)
    near = values.clamp(old_values - ppo.cliprange_value, old_values + ppo.cliprange_value)
    error = (values - returns) ** 2
    error_clipped = (near - returns) ** 2

    def mean(figures: Tensor) -> Tensor:
        return (figures * mask).sum() / count

    return Losses(
        policy=mean(torch.maximum(surrogate, surrogate_clipped)),
        value=0.5 * mean(torch.maximum(error, error_clipped)),
        clipped=mean((surrogate_clipped > surrogate).float()),
        clipped_value=mean((error_clipped > error).float()),
        entropy=None if entropies is None else mean(entropies),
    )


def adapted_kl_coef(kl_coef: float, kl: float, completions: int, ppo: PPOSection) -> float:
    """Return the next coefficient: it grows while the KL per completion exceeds the target (Ziegler et al.)."""
    if ppo.kl_target is None:
        return kl_coef
    error = min(max(kl / ppo.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * completions / ppo.kl_horizon)
