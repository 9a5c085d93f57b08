"""Trainings of the tiny model by TRL, without a recipe, and what a training's metrics say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rsoup.models.load import load_language_model
from rsoup.progress import Silent
from rsoup.recipe import GenerationSection, LoraSection, PPOSection, TrainingSection
from rsoup.rewards.functions import Function
from rsoup.tasks.loading import Example
from rsoup.training.loop import Objective
from rsoup.training.policy import Policy, fresh_config
from rsoup.training.team import Team
from rsoup.training.trl_backend import train_with_trl
from tiny import POSTS

ALGOS = ("grpo", "rloo")
PROMPTS, GROUP = 2, 3
GENERATION = GenerationSection(max_new_tokens=6, temperature=0.8)


def length(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(completion)) for completion in completions]


def one_step(algo: str, **settings: Any) -> TrainingSection:
    settings = {"ppo": PPOSection(epochs=1, kl_coef=0.1), "steps": 1, "learning_rate": 0.01, **settings}
    return TrainingSection(algo=algo, prompts_per_step=PROMPTS, completions_per_prompt=GROUP, **settings)  # type: ignore[arg-type]


def make_policy(model: Path) -> Policy:
    loaded = load_language_model(str(model), revision=None, dtype="float32")
    torch.manual_seed(0)
    policy = Policy(loaded, fresh_config(LoraSection(r=2, alpha=4), loaded))
    policy.remember_start()
    return policy


def make_examples(policy: Policy) -> list[Example]:
    tokenizer = policy.language_model.tokenizer
    return [Example(str(i), post, f"{post} :", tuple(tokenizer(f"{post} :").input_ids)) for i, post in enumerate(POSTS)]


def train_directly(
    policy: Policy, folder: Path, training: TrainingSection, scorers: dict[str, Any], weights: dict[str, float]
) -> None:
    train_with_trl(
        policy,
        make_examples(policy),
        Objective({name: Function(call) for name, call in scorers.items()}, weights),
        training,
        GENERATION,
        seed=0,
        folder=folder,
        fingerprint="",
        progress=Silent(),
        team=Team(),
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a training without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def provenance(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "rsoup.json").read_text())
    return content
