"""What the settings of a training mean to TRL's trainers, and which of them TRL cannot follow."""

from __future__ import annotations

import importlib.util
from typing import Any

from rsoup.errors import MissingPackageError, RecipeError
from rsoup.installing import pip_line
from rsoup.recipe import GenerationSection, PPOSection, TrainingSection, VllmSection

VALUE_SETTINGS = ("cliprange_value", "vf_coef", "gamma", "gae_lambda")
"""Settings of ``training.ppo`` that are about the value function, which GRPO and RLOO do without."""


def check_trl(training: TrainingSection, generation: GenerationSection) -> None:
    """Raise RsoupError if ``training.algo`` is TRL's and TRL is missing or cannot do what the settings say."""
    if training.algo == "ppo":
        return
    if importlib.util.find_spec("trl") is None:
        command = pip_line("train")
        raise MissingPackageError("trl", f"training.algo {training.algo}", command)
    algo, ppo, defaults = training.algo.upper(), training.ppo, PPOSection()
    for key in VALUE_SETTINGS:
        if getattr(ppo, key) != getattr(defaults, key):
            raise RecipeError(f"training.ppo.{key} is for PPO: {algo} has no value function.", f"Leave {key} out.")
    if (ppo.kl_target, ppo.kl_horizon) != (defaults.kl_target, defaults.kl_horizon) and ppo.kl_target is not None:
        raise RecipeError(
            f"training.ppo.kl_target is for PPO: with {algo} the KL coefficient stays what it is.",
            "Leave kl_target and kl_horizon out, and set training.ppo.kl_coef.",
        )
    if ppo.entropy_coef and training.algo == "rloo":
        raise RecipeError("TRL's RLOO has no entropy bonus.", "Set training.ppo.entropy_coef to 0, or use grpo.")
    if training.completions_per_prompt < 2:
        raise RecipeError(
            f"{algo} compares the completions of a prompt, and training.completions_per_prompt is 1.",
            "Set it to 2 or more.",
        )
    if generation.min_new_tokens is not None:
        raise RecipeError(
            f"generation.min_new_tokens is for PPO: TRL's {algo} does not draw the lengths of completions.",
            "Leave it out.",
        )
    if not generation.stop_at_eos:
        raise RecipeError(
            f"generation.stop_at_eos is off, and TRL's {algo} ends completions at the end-of-sequence token.",
            "Set it to true, or use ppo.",
        )


def passes_per_step(training: TrainingSection) -> int:
    """Return how many optimiser steps follow each round of sampling."""
    return training.ppo.epochs * training.ppo.mini_batches


def trainer_settings(training: TrainingSection, generation: GenerationSection, processes: int) -> dict[str, Any]:
    """Return the arguments of TRL's GRPOConfig or RLOOConfig that a recipe decides.

    A step of the recipe is one round of sampling: ``ppo.epochs`` passes of ``ppo.mini_batches`` optimiser steps each.
    """
    prompts = training.prompts_per_step // (training.ppo.mini_batches * processes)
    at_once = max(
        size for size in range(1, prompts + 1) if prompts % size == 0 and size <= (training.prompts_per_pass or prompts)
    )
    accumulated = prompts // at_once
    settings: dict[str, Any] = {
        "per_device_train_batch_size": at_once * training.completions_per_prompt,
        "gradient_accumulation_steps": accumulated,
        "steps_per_generation": accumulated * training.ppo.mini_batches,
        "num_generations": training.completions_per_prompt,
        "num_iterations": training.ppo.epochs,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": training.max_grad_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "beta": training.ppo.kl_coef,
        "epsilon": training.ppo.cliprange,
        "temperature": generation.temperature,
        "max_completion_length": generation.max_new_tokens,
        "top_k": 0,
        "top_p": 1.0,
    }
    if training.sampling == "vllm":
        settings |= vllm_settings(training.vllm)
    if training.algo == "grpo":
        settings["entropy_coef"] = training.ppo.entropy_coef
        # GDPO: what was normalised in each group is then divided by its deviation in the whole batch
        settings["scale_rewards"] = "batch" if training.score_scaling == "normalize_then_sum" else "group"
    return settings


def vllm_settings(vllm: VllmSection) -> dict[str, Any]:
    """Return the arguments of TRL's configurations by which vLLM samples."""
    if vllm.mode == "server":
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": vllm.url}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": vllm.memory,
        "vllm_enable_sleep_mode": vllm.sleep,
        "vllm_tensor_parallel_size": vllm.tensor_parallel,
    }
