"""The update: its gradients do not depend on how the work is split, and each term pulls where it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import generator_for
from rsoup.recipe import GenerationSection, LoraSection, PPOSection, TrainingSection
from rsoup.rewards.functions import Function
from rsoup.tasks import Task
from rsoup.tasks.loading import Example, load_examples
from rsoup.training.passes import alone
from rsoup.training.policy import Policy, fresh_config
from rsoup.training.rollout import collect, draw_numbers
from rsoup.training.team import Team
from rsoup.training.update import update
from tiny import write_posts

GENERATION = GenerationSection(max_new_tokens=6)


@pytest.fixture
def examples(language_model: LanguageModel, tmp_path: Path) -> tuple[Example, ...]:
    task = Task("tiny", str(write_posts(tmp_path / "posts.jsonl")))
    return load_examples(task, language_model.tokenizer, "train").rows


def length(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def updated(
    model: LanguageModel, examples: tuple[Example, ...], lr: float = 1e-2, **settings: Any
) -> tuple[dict[str, Tensor], dict[str, float], Policy]:
    """Return the gradient of each trained tensor in the last optimiser step, the figures, and the policy."""
    torch.manual_seed(0)
    policy = Policy(model, fresh_config(LoraSection(r=2, alpha=4, dropout=settings.pop("dropout", 0.0)), model))
    policy.remember_start()
    training = TrainingSection.model_validate(
        {"prompts_per_step": 4, "completions_per_prompt": 3, "ppo": PPOSection(epochs=2), **settings}
    )
    draws = draw_numbers(training, GENERATION, generator_for(0, "sampling", 0))
    team = Team()
    rollout = alone(collect(policy, examples[:4], {"length": Function(length)}, training, GENERATION, draws), team)
    optimizer = torch.optim.SGD(policy.parameters, lr=lr)
    rewards = torch.from_numpy(rollout.scores["length"])
    figures = alone(update(policy, optimizer, rollout, rewards, training, 0.1, team), team)
    names = [*(name for name, p in policy.peft.named_parameters() if p.requires_grad), "value.weight", "value.bias"]
    gradients = {name: p.grad.clone() for name, p in zip(names, policy.parameters, strict=True) if p.grad is not None}
    return gradients, figures, policy


@pytest.mark.parametrize(
    "settings",
    [{"prompts_per_pass": 1}, {"prompts_per_pass": 3}, {"gradient_checkpointing": True}],
    ids=["one prompt a pass", "three prompts a pass", "gradient checkpointing"],
)
@pytest.mark.parametrize("mini_batches", [1, 2])
def test_memory_savers_change_no_gradient(
    tiny_model: Path, examples: tuple[Example, ...], settings: dict[str, Any], mini_batches: int
) -> None:
    from rsoup.models.load import load_language_model

    results = []
    for extra in ({}, settings):
        model = load_language_model(str(tiny_model), revision=None, dtype="float32")
        results.append(updated(model, examples, ppo=PPOSection(epochs=2, mini_batches=mini_batches), **extra))
    (plain, figures, _), (other, other_figures, _) = results
    assert plain.keys() == other.keys()
    assert any(gradient.any() for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert other_figures == pytest.approx(figures, rel=1e-4, abs=1e-6)


def test_checkpointed_layers_are_computed_twice_with_the_same_dropout(
    tiny_model: Path, examples: tuple[Example, ...]
) -> None:
    from rsoup.models.load import load_language_model

    results = []
    for checkpointing in (False, True):
        model = load_language_model(str(tiny_model), revision=None, dtype="float32")
        settings = {"gradient_checkpointing": checkpointing, "dropout": 0.3, "ppo": PPOSection(epochs=1)}
        results.append(updated(model, examples, **settings)[0])
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_an_entropy_bonus_spreads_the_distribution(tiny_model: Path, examples: tuple[Example, ...]) -> None:
    from rsoup.models.load import load_language_model

    entropies = []
    for coefficient in (0.0, 10.0):
        model = load_language_model(str(tiny_model), revision=None, dtype="float32")
        ppo = PPOSection(epochs=4, entropy_coef=coefficient)
        _, _, policy = updated(model, examples, lr=0.05, ppo=ppo)
        ids, mask = model.pad([example.tokens for example in examples[:4]])
        completions = torch.full((4, 1, 2), 7)
        with torch.no_grad():
            thoughts = policy.think(ids, mask, completions, 1.0, with_entropy=True)
        assert thoughts.entropies is not None
        entropies.append(float(thoughts.entropies.mean()))
    assert entropies[1] > entropies[0] + 1e-3
