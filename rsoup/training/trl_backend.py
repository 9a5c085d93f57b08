"""GRPO and RLOO through TRL's trainers, with the start, the recipe, the rewards and the files of PPO.

TRL samples, computes advantages and makes the optimiser steps. What surrounds that is rsoup's: which prompts a step
has, the seed it draws from, scores, metrics and checkpoints. So a training goes on from a checkpoint as PPO's does:
a new trainer gets the factors, the optimiser's state and the prompts that are left.
"""

from __future__ import annotations

import copy
import logging as loggers
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rsoup.errors import ModelError
from rsoup.locks import NOBODY_ELSE, Turn
from rsoup.models.language_model import LanguageModel
from rsoup.progress import Progress
from rsoup.recipe import GenerationSection, TrainingSection
from rsoup.tasks.loading import Example
from rsoup.training.checkpoint import Checkpoint, TrainingState, keeping, list_checkpoints, load_checkpoint, read_state
from rsoup.training.loop import Objective
from rsoup.training.metrics import logging
from rsoup.training.policy import Policy
from rsoup.training.rollout import pick_indices
from rsoup.training.team import Team
from rsoup.training.trl_rounds import Judge, Rounds
from rsoup.training.trl_settings import passes_per_step, trainer_settings
from rsoup.training.update import diverged
from rsoup.training.vllm_sampling import Place, lent_to_vllm

TRAINERS: dict[str, tuple[Any, Any]] = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}
REFERENCE = "ref"
"""The adapter in which TRL keeps the start as its KL reference."""

loggers.getLogger("trl").setLevel(loggers.ERROR)  # its warnings are about settings that are made here


@contextmanager
def _old_names() -> Iterator[None]:
    """Let TRL call gradient checkpointing by the name that newer releases of transformers warn about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield


@_old_names()
def train_with_trl(
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
    vllm: Place | None = None,
    turn: Turn = NOBODY_ELSE,
) -> TrainingState:
    """Train the policy in place with TRL's trainer for ``training.algo`` and return the last state.

    As ``rsoup.training.loop.train``: the same prompts in the same order, the same files, and on the CPU a training
    that goes on from a checkpoint gives bit for bit what an undisturbed one gives.
    """
    team.share(training.prompts_per_step, training.ppo.mini_batches)  # refuses what cannot be shared out
    spread = len(set(getattr(policy.language_model.model, "hf_device_map", {}).values())) > 1
    if team.size == 1 and torch.cuda.device_count() > 1 and not spread:
        raise ModelError(
            f"{training.algo.upper()}: one process sees {torch.cuda.device_count()} GPUs; TRL would spread over them.",
            "Show it one (CUDA_VISIBLE_DEVICES=0), start a process for each (accelerate launch -m rsoup ...), or set "
            "model.placement to spread.",
        )
    if policy.language_model.shards is not None:  # what FSDP looks after is none of DDP's business
        frozen = [name for name, parameter in policy.peft.named_parameters() if not parameter.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(policy.peft, frozen)
    optimizer = torch.optim.Adam(policy.parameters, lr=training.learning_rate)
    checkpoints = list_checkpoints(folder)
    state = TrainingState(step=0, kl_coef=training.ppo.kl_coef, seconds=0.0, fingerprint=fingerprint)
    if checkpoints:
        state = read_state(checkpoints[-1])
    judge = Judge(objective, training, policy.language_model, examples, state.running, team)
    settings = {
        **trainer_settings(training, generation, team.size),
        **_surroundings(policy),
        "max_steps": max(1, training.steps - state.step) * passes_per_step(training),
        "seed": seed,
        "output_dir": str(folder),
    }
    if vllm is not None and training.vllm.mode == "colocate":
        longest = max(len(example.tokens) for example in examples)
        settings["vllm_max_model_length"] = longest + generation.max_new_tokens
    trainer_class, config_class = TRAINERS[training.algo]
    with lent_to_vllm(policy, vllm) if vllm is not None else nullcontext():
        trainer = trainer_class(
            model=policy.peft,
            reward_funcs=judge.objective_rewards,
            args=config_class(**settings),
            train_dataset=_rows(examples, training, state.step, seed),
            processing_class=tokenizer_for(policy.language_model, examples),
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        try:
            if checkpoints:  # only now: the trainer has taken the present factors as its reference
                state = load_checkpoint(checkpoints[-1], policy, optimizer)
            team.wait()  # for all to have read it
            progress.start(folder.name, training.steps, state.step)
            with logging(folder, state.step, team) as log, keeping(folder, turn, writes=team.leads) as keep:
                rounds = Rounds(state, judge, policy, optimizer, training, seed, team, progress, log, keep, after_step)
                trainer.add_callback(rounds)
                keep(Checkpoint.of(state, policy, optimizer), save=False)
                if state.step < training.steps:
                    _run(trainer)
        finally:
            if REFERENCE in policy.peft.peft_config:  # without a KL coefficient there is none
                policy.peft.delete_adapter(REFERENCE)
            policy.peft.eval()
    progress.finish()
    return rounds.state


def _run(trainer: Any) -> None:
    try:
        trainer.train()
    except RuntimeError as problem:
        if "probability tensor contains" in str(problem):  # torch draws the next token from NaN
            raise diverged() from problem
        raise


def tokenizer_for(model: LanguageModel, examples: Sequence[Example]) -> Any:
    """Return the model's tokenizer, but with each example's own tokens for its prompt.

    TRL tokenises prompts as ordinary texts, which would give a templated one a second beginning-of-sequence token.
    """
    if not model.stop_ids:
        raise ModelError(
            f"{model.name}: has no end-of-sequence token, which TRL's trainers need.",
            "Set eos_token in tokenizer_config.json, or use training.algo ppo.",
        )
    tokens = {example.prompt: list(example.tokens) for example in examples}

    def given(_self: Any, text: Sequence[str], **_options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [tokens[prompt] for prompt in text]}

    twin = copy.deepcopy(model.tokenizer)
    twin.__class__ = type(type(twin).__name__, (type(twin),), {"__call__": given})
    if twin.eos_token_id is None:
        twin.eos_token = twin.convert_ids_to_tokens(model.stop_ids[0])
    if twin.pad_token_id is None:
        twin.pad_token = twin.convert_ids_to_tokens(model.pad_id)
    return twin


def _surroundings(policy: Policy) -> dict[str, Any]:
    """Return the arguments of TRL's configurations that follow from where and how a training runs."""
    on_cpu = policy.language_model.device.type == "cpu"
    return {
        "accelerator_config": {"use_configured_state": True},
        "bf16": AcceleratorState().mixed_precision == "bf16",
        "use_cpu": on_cpu,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "disable_dropout": True,  # TRL would sample with it, and the log-probabilities would lie
        "shuffle_dataset": False,  # the rows come in the order of PPO's
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _rows(examples: Sequence[Example], training: TrainingSection, done: int, seed: int) -> Dataset:
    """Return the prompts of the steps that are left, in order, and which examples they are."""
    rows = Dataset.from_dict({"prompt": [example.prompt for example in examples], "row": list(range(len(examples)))})
    first = min(done, training.steps - 1) * training.prompts_per_step
    return rows.select(pick_indices(len(examples), first, training.steps * training.prompts_per_step, seed))
