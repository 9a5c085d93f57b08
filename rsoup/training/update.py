"""The update of PPO: passes of clipped policy and value losses over a rollout."""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from rsoup.errors import RsoupError
from rsoup.recipe import TrainingSection
from rsoup.training.algorithm import Losses, gae, ppo_losses, token_rewards, whiten
from rsoup.training.passes import Learning, Thinking
from rsoup.training.policy import Policy, Thoughts
from rsoup.training.rollout import Rollout
from rsoup.training.team import Team


async def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    rewards: Tensor,
    training: TrainingSection,
    kl_coef: float,
    team: Team,
) -> dict[str, float]:
    """Make ``ppo.epochs`` passes of ``ppo.mini_batches`` optimiser steps over a rollout; return their mean losses.

    ``rewards`` (P * G,) is what each completion earns, before the KL penalty; one that is NaN, since no reward applies
    to it, takes no part in the update.
    """
    ppo = training.ppo
    batch = _Batch(rollout, rewards, training, kl_coef, team)
    noted: list[dict[str, float]] = []
    for _ in range(ppo.epochs):
        for mini_batch in torch.arange(len(rollout.ids)).chunk(ppo.mini_batches):
            optimizer.zero_grad()
            tokens = team.total(batch.mask[mini_batch].sum()).clamp(min=1)
            losses = [
                await _backward(policy, batch, prompts, training, tokens, first=not noted)
                for prompts in mini_batch.split(training.prompts_per_pass or len(mini_batch))
            ]
            team.add_gradients(policy.parameters)
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters, training.max_grad_norm)
            if not bool(torch.isfinite(grad_norm)):
                raise diverged()
            optimizer.step()
            noted.append({**_figures(losses, team), "grad_norm": float(grad_norm)})
    return {key: statistics.fmean(entry[key] for entry in noted) for key in noted[0]}


def diverged() -> RsoupError:
    """Return the error that ends a training whose gradient is not finite."""
    return RsoupError(
        "Training has diverged: the gradient is not finite. The last checkpoint is whole.",
        "Lower training.learning_rate, and start over with --overwrite.",
    )


class _Batch:
    """A rollout with advantages and returns, (P, G, T) each; ``mask`` has the tokens of the completions that count."""

    def __init__(
        self, rollout: Rollout, rewards: Tensor, training: TrainingSection, kl_coef: float, team: Team
    ) -> None:
        self.rollout = rollout
        self.old_logprobs, self.old_values = rollout.thoughts.logprobs.detach(), rollout.thoughts.values.detach()
        counts = ~rewards.isnan().to(rollout.mask.device)
        self.mask = rollout.mask & counts.view(*rollout.mask.shape[:2], 1)
        mask, values = self.mask.flatten(0, 1), self.old_values.flatten(0, 1)  # (P * G, T)
        logprobs, ref_logprobs = self.old_logprobs.flatten(0, 1), rollout.ref_logprobs.flatten(0, 1)
        earned = token_rewards(rewards.nan_to_num().to(values), logprobs, ref_logprobs, mask, kl_coef)
        advantages = gae(earned, values, mask, training.ppo.gamma, training.ppo.gae_lambda)
        self.returns = (advantages + values).view_as(self.old_values)
        self.advantages = whiten(advantages, mask, team.total).view_as(self.old_values)


async def _backward(
    policy: Policy,
    batch: _Batch,
    prompts: Tensor,
    training: TrainingSection,
    tokens: Tensor,
    *,
    first: bool,
) -> Losses:
    """Add the gradients of some prompts of a mini-batch of ``tokens`` tokens to those that are there."""
    rollout = batch.rollout
    if first and rollout.thoughts.logprobs.requires_grad:
        thoughts: Thoughts = rollout.thoughts  # the rollout's own forward pass, with nothing changed since
    else:
        thoughts = await Thinking(
            policy,
            rollout.prompt_ids[prompts],
            rollout.prompt_mask[prompts],
            rollout.ids[prompts],
            rollout.temperature,
            "learning",
            with_entropy=training.ppo.entropy_coef > 0,
            checkpointing=training.gradient_checkpointing,
        )
    losses = ppo_losses(
        thoughts.logprobs,
        thoughts.values,
        batch.old_logprobs[prompts],
        batch.old_values[prompts],
        batch.advantages[prompts],
        batch.returns[prompts],
        batch.mask[prompts],
        training.ppo,
        entropies=thoughts.entropies,
        tokens=tokens,
    )
    await Learning(policy, losses.total(training.ppo), checkpointing=training.gradient_checkpointing)
    return losses


def _figures(parts: list[Losses], team: Team) -> dict[str, float]:
    """Return the losses of a mini-batch from those of its parts, in all processes."""
    names = [name for name, value in vars(parts[0]).items() if value is not None and name != "entropy"]
    sums = torch.stack([torch.stack([getattr(part, name).detach() for part in parts]).sum() for name in names])
    return dict(zip(names, team.total(sums).tolist(), strict=True))
