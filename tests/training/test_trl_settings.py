"""A recipe's settings as TRL takes them, and the refusal of those that it has not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from forking import Forked, tell_modules
from rsoup.errors import ModelError, RecipeError
from rsoup.progress import Silent
from rsoup.recipe import GenerationSection, PPOSection, TrainingSection
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from rsoup.training.trl_settings import check_trl, trainer_settings
from tiny import recipe_content, write_recipe

from .directly import GENERATION, length, make_policy, one_step, train_directly

PLAIN = TrainingSection(completions_per_prompt=4)


@pytest.mark.parametrize(
    ("algo", "training", "generation", "message"),
    [
        ("grpo", {"ppo": PPOSection(vf_coef=0.2)}, {}, "training.ppo.vf_coef is for PPO: GRPO has no value function."),
        ("rloo", {"ppo": PPOSection(gamma=0.9)}, {}, "training.ppo.gamma is for PPO: RLOO has no value function."),
        ("rloo", {"ppo": PPOSection(kl_target=3.0)}, {}, "training.ppo.kl_target is for PPO"),
        ("rloo", {"ppo": PPOSection(entropy_coef=0.1)}, {}, "TRL's RLOO has no entropy bonus."),
        ("grpo", {"completions_per_prompt": 1}, {}, "training.completions_per_prompt is 1"),
        ("grpo", {}, {"min_new_tokens": 3}, "generation.min_new_tokens is for PPO"),
        ("grpo", {}, {"stop_at_eos": False}, "generation.stop_at_eos is off"),
    ],
)
def test_what_trl_cannot_do_is_refused(
    algo: str, training: dict[str, Any], generation: dict[str, Any], message: str
) -> None:
    section = PLAIN.model_copy(update={"algo": algo, **training})
    with pytest.raises(RecipeError) as caught:
        check_trl(section, GenerationSection(**generation))
    assert message in caught.value.message
    check_trl(section.model_copy(update={"algo": "ppo"}), GenerationSection(**generation))
    check_trl(PLAIN.model_copy(update={"algo": algo}), GenerationSection())


def test_nothing_is_written_before_the_settings_are_checked(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["training"] |= {"algo": "grpo", "completions_per_prompt": 1}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RecipeError):
        train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("processes", "per_pass", "expected"),
    [(1, None, (24, 1, 2)), (1, 2, (8, 3, 6)), (1, 4, (12, 2, 4)), (2, None, (12, 1, 2)), (3, 1, (4, 2, 4))],
)
def test_samples_of_a_step_are_split_into_equal_passes(
    processes: int, per_pass: int | None, expected: tuple[int, int, int]
) -> None:
    """12 prompts of 4 completions in 2 mini-batches: rows of a pass, passes of an optimiser step, passes of a round."""
    training = TrainingSection(
        algo="grpo",
        prompts_per_step=12,
        completions_per_prompt=4,
        prompts_per_pass=per_pass,
        ppo=PPOSection(mini_batches=2, epochs=3, cliprange=0.3, kl_coef=0.07),
    )
    settings = trainer_settings(training, GENERATION, processes)
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")
    assert tuple(settings[key] for key in keys) == expected
    assert math.prod(expected[::2]) * processes == 12 * 4
    assert (settings["num_iterations"], settings["epsilon"], settings["beta"]) == (3, 0.3, 0.07)


def test_several_gpus_without_a_launcher_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    policy = make_policy(tiny_model)
    with pytest.raises(ModelError, match="one process sees 2 GPUs"):
        train_directly(policy, tmp_path, one_step("grpo"), {"length": length}, {"length": 1.0})
    assert not list(tmp_path.glob("step-*"))


def test_ppo_does_not_load_trl() -> None:
    with Forked(tell_modules) as process:
        assert process.ended() == 0
        imported = process.out.split()
    assert "rsoup.training.expert" in imported
    assert "trl" not in imported
