"""The PPO loop: sample, score, update, note."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsoup.errors import RsoupError
from rsoup.files import write_text
from rsoup.models.sampling import generator_for
from rsoup.progress import Progress
from rsoup.recipe import GenerationSection, TrainingSection
from rsoup.rewards.scoring import Scorer, weighted_score
from rsoup.tasks.loading import Example
from rsoup.training.algorithm import adapted_kl_coef, gae, masked_mean, ppo_losses, token_rewards, whiten
from rsoup.training.checkpoint import TrainingState, list_checkpoints, load_checkpoint, save_checkpoint
from rsoup.training.policy import Policy
from rsoup.training.rollout import Rollout, collect, pick_examples

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Objective:
    """What a training maximises: the weighted mean of scores; every scorer is logged, also those without weight."""

    scorers: Mapping[str, Scorer]
    weights: Mapping[str, float]


def train(
    policy: Policy,
    examples: Sequence[Example],
    objective: Objective,
    training: TrainingSection,
    generation: GenerationSection,
    *,
    seed: int,
    folder: Path,
    fingerprint: str,
    progress: Progress,
) -> TrainingState:
    """Train the policy in place with PPO and return the last state.

    ``folder`` keeps checkpoints and metrics.jsonl; a training found there goes on from its last checkpoint and
    gives, on the CPU, bit for bit what an undisturbed one gives.
    """
    optimizer = torch.optim.Adam(policy.parameters, lr=training.learning_rate)
    state = TrainingState(step=0, kl_coef=training.ppo.kl_coef, seconds=0.0, fingerprint=fingerprint)
    if checkpoints := list_checkpoints(folder):
        state = load_checkpoint(checkpoints[-1], policy, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    _cut_metrics(folder / METRICS_FILE, state.step)
    progress.start(folder.name, training.steps, state.step)
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as log:
        while state.step < training.steps:
            began = time.perf_counter()
            batch = pick_examples(examples, training.prompts_per_step, state.step, seed)
            random = generator_for(seed, "sampling", state.step)
            torch.manual_seed(random.initial_seed())  # dropout draws from the global generator
            rollout = collect(policy, batch, objective.scorers, training, generation, random)
            losses = update(policy, optimizer, rollout, objective.weights, training, state.kl_coef)
            line = {"step": state.step + 1, **_describe(rollout), "kl_coef": state.kl_coef, **losses}
            state = _advanced(state, rollout, training, time.perf_counter() - began)
            log.write(json.dumps({**line, "seconds": round(state.seconds, 3)}) + "\n")
            log.flush()
            if state.step % training.checkpoint_every == 0 or state.step == training.steps:
                save_checkpoint(folder, state, policy, optimizer)
            progress.advance(_note(rollout))
    progress.finish()
    return state


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    weights: Mapping[str, float],
    training: TrainingSection,
    kl_coef: float,
) -> dict[str, float]:
    """Make ``ppo.epochs`` passes of ``ppo.mini_batches`` optimiser steps over a rollout; return their mean losses."""
    ppo = training.ppo
    prompts, group, _ = rollout.ids.shape
    mask = rollout.mask.flatten(0, 1)  # (P * G, T), as all that follows
    present = rollout.logprobs.flatten(0, 1), rollout.values.flatten(0, 1)
    old_logprobs, old_values = (tensor.detach() for tensor in present)
    scores = torch.from_numpy(weighted_score(rollout.scores, weights)).float().to(old_values.device)
    rewards = token_rewards(scores, old_logprobs, rollout.ref_logprobs.flatten(0, 1), mask, kl_coef)
    advantages = gae(rewards, old_values, mask, ppo.gamma, ppo.gae_lambda)
    returns = advantages + old_values
    advantages = whiten(advantages, mask)
    noted: list[dict[str, float]] = []
    for _ in range(ppo.epochs):
        for chunk in torch.arange(prompts).chunk(ppo.mini_batches):
            first, last = int(chunk[0]), int(chunk[-1]) + 1
            rows = slice(first * group, last * group)
            if noted or not present[0].requires_grad:
                present = _evaluate(policy, rollout, slice(first, last))
            logprobs, values = present
            losses = ppo_losses(
                logprobs, values, old_logprobs[rows], old_values[rows], advantages[rows], returns[rows], mask[rows], ppo
            )
            optimizer.zero_grad()
            losses.total(ppo.vf_coef).backward()
            grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters, training.max_grad_norm)
            if not bool(torch.isfinite(grad_norm)):
                raise RsoupError(
                    "Training has diverged: the gradient is not finite. The last checkpoint is whole.",
                    "Lower training.learning_rate, and start over with --overwrite.",
                )
            optimizer.step()
            figures = {**vars(losses), "grad_norm": grad_norm}
            noted.append({key: float(figure.detach()) for key, figure in figures.items()})
    return {key: statistics.fmean(entry[key] for entry in noted) for key in noted[0]}


def _evaluate(policy: Policy, rollout: Rollout, prompts: slice) -> tuple[Tensor, Tensor]:
    """Return the present log-probabilities and values of some prompts' completions. (P' * G, T) each."""
    model = policy.language_model
    ids = rollout.ids[prompts]
    with policy.dropout():
        states = model.completion_states(rollout.prompt_ids[prompts], rollout.prompt_mask[prompts], ids)
    logprobs = model.logprobs(states, ids, rollout.temperature)
    return logprobs.flatten(0, 1), policy.values(states).flatten(0, 1)


def _advanced(state: TrainingState, rollout: Rollout, training: TrainingSection, seconds: float) -> TrainingState:
    kl_coef = adapted_kl_coef(state.kl_coef, rollout.kl, len(rollout.texts), training.ppo)
    return replace(state, step=state.step + 1, kl_coef=kl_coef, seconds=state.seconds + seconds)


def _describe(rollout: Rollout) -> dict[str, Any]:
    """Return what metrics.jsonl says of a rollout."""
    lengths = rollout.mask.sum(-1).float()
    return {
        "scores": {name: float(values.mean()) for name, values in rollout.scores.items()},
        "kl": rollout.kl,
        "entropy": -float(masked_mean(rollout.logprobs.detach(), rollout.mask)),
        "completion_tokens": float(lengths.mean()),
        "prompt": rollout.posts[0],
        "completion": rollout.texts[0],
    }


def _note(rollout: Rollout) -> str:
    scores = "  ".join(f"{name} {values.mean():.3f}" for name, values in rollout.scores.items())
    return f"{scores}  kl {rollout.kl:.2f}"


def _cut_metrics(path: Path, steps: int) -> None:
    """Keep the lines of the first ``steps`` steps: those after the last checkpoint are made again."""
    if path.is_file():
        write_text(path, "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:steps]))
