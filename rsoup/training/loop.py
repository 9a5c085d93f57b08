"""The PPO loop: sample, score, update, note."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsoup.errors import RsoupError
from rsoup.locks import NOBODY_ELSE, Turn
from rsoup.models.sampling import generator_for
from rsoup.progress import Progress
from rsoup.recipe import GenerationSection, TrainingSection
from rsoup.rewards.functions import TrainerState
from rsoup.rewards.scoring import Scorer, mean_of
from rsoup.tasks.loading import Example
from rsoup.training.algorithm import adapted_kl_coef
from rsoup.training.checkpoint import Checkpoint, TrainingState, keeping, list_checkpoints, load_checkpoint
from rsoup.training.metrics import Seen, logging, note, saving_failed_sample, see, shown
from rsoup.training.passes import alone
from rsoup.training.policy import Policy
from rsoup.training.rollout import Rollout, collect, draw_numbers, pick_examples
from rsoup.training.scores import Running, check_applies, objective_scores
from rsoup.training.team import Team
from rsoup.training.update import update
from rsoup.training.vllm_sampling import Place, VllmSampler

SHOW_EVERY = 5
"""Steps between completions that are shown."""
PATIENCE = 5
"""Steps in a row after which a KL divergence that is clearly negative ends the training."""


@dataclass(frozen=True)
class Objective:
    """What a training maximises: the weighted mean of scores, those of ``minimized`` rewards with the opposite sign.

    Every scorer is logged as it is, also those without weight.
    """

    scorers: Mapping[str, Scorer]
    weights: Mapping[str, float]
    minimized: frozenset[str] = frozenset()


def train(*arguments: Any, team: Team, **options: Any) -> TrainingState:
    """Train a policy by itself; the arguments are those of ``rounds``."""
    return alone(rounds(*arguments, team=team, **options), team)


async def rounds(
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
    team: Team,
    after_step: Callable[[TrainingState], None] = lambda _state: None,
    clock: Callable[[], float] = time.perf_counter,
    vllm: Place | None = None,
    turn: Turn = NOBODY_ELSE,
) -> TrainingState:
    """Train the policy in place with PPO and return the last state.

    ``folder`` keeps checkpoints and metrics.jsonl; a training found there goes on from its last checkpoint and
    gives, on the CPU, bit for bit what an undisturbed one gives. Whatever ends it early, an interruption or a
    reward that fails, leaves a checkpoint of the last whole step. ``clock`` tells the seconds that it has taken,
    ``vllm`` is where the base lies, if vLLM samples, ``turn`` the right to make this adapter.
    """
    sampler = None
    if vllm is not None:
        longest = max(len(example.tokens) for example in examples)
        sampler = VllmSampler(vllm, training.vllm, generation, longest=longest, seed=seed)
    optimizer = torch.optim.Adam(policy.parameters, lr=training.learning_rate)
    own = team.share(training.prompts_per_step, training.ppo.mini_batches)
    state = TrainingState(step=0, kl_coef=training.ppo.kl_coef, seconds=0.0, fingerprint=fingerprint)
    if checkpoints := list_checkpoints(folder):
        state = load_checkpoint(checkpoints[-1], policy, optimizer)
    team.wait()  # for all to have read it
    progress.start(folder.name, training.steps, state.step)
    with logging(folder, state.step, team) as log, keeping(folder, turn, writes=team.leads) as keep:
        keep(Checkpoint.of(state, policy, optimizer), save=False)
        while state.step < training.steps:
            began = clock()
            batch = pick_examples(examples, training.prompts_per_step, state.step, seed)
            random = generator_for(seed, "sampling", state.step)
            torch.manual_seed(random.initial_seed())  # dropout draws from the global generator
            draws = draw_numbers(training, generation, random).of(own)
            with saving_failed_sample(folder, state.step + 1):
                rollout = await collect(
                    policy,
                    [batch[index] for index in own],
                    objective.scorers,
                    training,
                    generation,
                    draws,
                    TrainerState(state.step, training.steps),
                    sampler,
                )
            seen = see(rollout, state, team)
            check_applies(seen.running, objective.weights, state.step + 1, training.steps)
            rewards = _rewards(rollout, objective, seen.running, training)
            losses = await update(policy, optimizer, rollout, torch.from_numpy(rewards), training, state.kl_coef, team)
            figures = {"reward": mean_of(team.gather(rewards)), "kl_coef": state.kl_coef, **losses}
            seconds = clock() - began
            state = _advanced(state, seen, training, seconds)
            log({"step": state.step, **seen.metrics, **figures, "seconds": round(state.seconds, 3)})
            due = state.step % training.checkpoint_every == 0 or state.step == training.steps
            after_step(state)  # before the checkpoint: a step that is done is whole
            keep(Checkpoint.of(state, policy, optimizer), save=due)
            progress.advance(note(seen.metrics, seen.tokens / seconds))
            if (state.step - 1) % SHOW_EVERY == 0:
                progress.say(shown(state.step, rollout.texts[0], rollout.scores))
            _check_kl(state)
    progress.finish()
    return state


def _rewards(
    rollout: Rollout, objective: Objective, running: Mapping[str, Running], training: TrainingSection
) -> np.ndarray:
    """Return what each of this process's completions earns, before the KL penalty. (P * G,); NaN: no reward applies."""
    scores = objective_scores(rollout.scores, objective.weights, running, training, objective.minimized)
    missing = ~rollout.ended.flatten().cpu().numpy()
    return np.asarray(scores - training.missing_eos_penalty * missing)


def _advanced(state: TrainingState, seen: Seen, training: TrainingSection, seconds: float) -> TrainingState:
    kl = float(seen.kls.mean())
    error = float(seen.kls.std(ddof=1)) / len(seen.kls) ** 0.5 if len(seen.kls) > 1 else float("inf")
    return replace(
        state,
        step=state.step + 1,
        kl_coef=adapted_kl_coef(state.kl_coef, kl, len(seen.kls), training.ppo),
        seconds=state.seconds + seconds,
        running=seen.running,
        negative_kl_steps=state.negative_kl_steps + 1 if kl + 3 * error < 0 else 0,
    )


def _check_kl(state: TrainingState) -> None:
    """Stop if the estimated KL divergence, which cannot be negative, stays so by more than chance explains."""
    if state.negative_kl_steps >= PATIENCE:
        raise RsoupError(
            f"The KL divergence from the start was clearly negative for {PATIENCE} steps: the log-probabilities are "
            "not those that completions were sampled with.",
            "Set model.dtype to float32, and report the model if that does not help.",
        )
