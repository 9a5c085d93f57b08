"""Trainings through TRL: their files, interruptions and failures are those of PPO."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forking import command, ranks
from rsoup.errors import RewardError, RsoupError
from rsoup.files import sha256_file
from rsoup.progress import Silent
from rsoup.recipe import PPOSection, Recipe, TrainingSection
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from rsoup.training.folders import adapter_folder
from tiny import build_adapter, recipe_content, write_recipe

from .directly import ALGOS, length, make_policy, metrics, one_step, train_directly

WEIGHTS = "adapter_model.safetensors"
COUNTED = '''
import os
from pathlib import Path

def brief(prompts, completions):
    """Score brevity until the countdown in the file beside this one is over; then do what the file says."""
    counter = Path(__file__).with_name("countdown")
    left, end = counter.read_text().split(maxsplit=1)
    if left == "0":
        if end == "nan":
            return [float("nan")] * len(completions)
        os.kill(os.getpid(), int(end))
    counter.write_text(f"{int(left) - 1} {end}")
    return [-float(len(completion.split())) for completion in completions]
'''


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def countdown_recipe(folder: Path, model: Path, algo: str, left: int, end: str = f"{signal.SIGINT:d}") -> Recipe:
    """Return a recipe whose reward sends a signal, or returns nan, when its countdown is over."""
    folder.mkdir(exist_ok=True)
    content = recipe_content(folder, model)
    (folder / "counted.py").write_text(COUNTED)
    (folder / "countdown").write_text(f"{left} {end}")
    content["rewards"] = {"brief": {"function": f"{folder / 'counted.py'}:brief"}}
    content["training"] |= {"algo": algo, "ppo": {"epochs": 2, "mini_batches": 2, "kl_coef": 0.05}}
    content["morl"] = []
    return load_recipe(write_recipe(folder / "r.yaml", content))


def train_brief(recipe: Recipe) -> Path:
    return train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())


@pytest.mark.parametrize("algo", ALGOS)
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    whole = train_brief(countdown_recipe(tmp_path / "whole", tiny_model, algo, left=100))
    for step in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            train_brief(countdown_recipe(tmp_path / str(step), tiny_model, algo, left=step))
        assert not (tmp_path / str(step) / "run/adapters/brief").exists()
        folder = train_brief(countdown_recipe(tmp_path / str(step), tiny_model, algo, left=3 - step))
        assert sha256_file(folder / WEIGHTS) == sha256_file(whole / WEIGHTS)
        assert metrics(folder) == metrics(whole)


def test_a_training_killed_in_the_middle_of_a_step_goes_on_bit_for_bit(tmp_path: Path, tiny_model: Path) -> None:
    whole = train_brief(countdown_recipe(tmp_path / "whole", tiny_model, "rloo", left=100))
    countdown_recipe(tmp_path / "killed", tiny_model, "rloo", left=2, end=f"{signal.SIGKILL:d}")
    with command("train", tmp_path / "killed/r.yaml", "--reward", "brief") as killed:
        assert killed.ended() == -signal.SIGKILL
        talk = [line for line in killed.err.splitlines() if "/3" not in line and line.strip()]
    assert len(talk) == 2, talk  # the shared start, and a completion of the first step: TRL says nothing
    folder = train_brief(countdown_recipe(tmp_path / "killed", tiny_model, "rloo", left=1))
    assert sha256_file(folder / WEIGHTS) == sha256_file(whole / WEIGHTS)
    assert metrics(folder) == metrics(whole)


def test_two_processes_share_the_completions_of_a_step(tmp_path: Path, tiny_model: Path) -> None:
    alone = train_brief(countdown_recipe(tmp_path / "alone", tiny_model, "grpo", left=100))
    content = recipe_content(tmp_path / "two", tiny_model)
    content["training"] |= {"algo": "grpo", "steps": 2, "ppo": {"epochs": 2, "kl_coef": 0.05}}
    recipe = write_recipe(tmp_path / "two/r.yaml", content)
    with ExitStack() as stack:
        on_cpu = {"ACCELERATE_USE_CPU": "true"}
        for process in [*map(stack.enter_context, ranks(2, "train", recipe, "--reward", "brief", environment=on_cpu))]:
            assert process.ended() == 0, process.err
    folder = tmp_path / "two/run/adapters/brief"
    found = json.loads((folder / "rsoup.json").read_text())
    assert (found["processes"], found["score_statistics"]["brief"]["count"]) == (2, 2 * 2 * 3)
    assert [line["prompt"] for line in metrics(folder)] == [line["prompt"] for line in metrics(alone)[:2]]
    assert metrics(folder)[0]["kl"] == 0.0
    assert metrics(folder)[1]["kl"] != 0.0


@pytest.mark.parametrize("algo", ALGOS)
def test_the_kl_reference_is_the_given_start(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    given = build_adapter(tmp_path / "given", tiny_model, seed=1, lora_dropout=0.1)
    content = recipe_content(tmp_path, tiny_model)
    content["model"] |= {"start": str(given)}
    content["training"] |= {"algo": algo, "save_every": 2}
    del content["model"]["lora"]
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    folder = train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3]
    assert metrics(folder)[0]["kl"] == 0.0
    assert metrics(folder)[2]["kl"] != 0.0
    start, end = (load_file(adapter_folder(recipe, name) / WEIGHTS) for name in ("init", "brief"))
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    for adapter in (folder, tmp_path / "run/trajectory/brief/step-000002"):
        files = {WEIGHTS, "adapter_config.json", "README.md", "rsoup.json", "metrics.jsonl"}
        assert {path.name for path in adapter.iterdir()} == files  # and no copy of the reference
    assert json.loads((folder / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    assert "trained with GRPO" in (folder / "README.md").read_text() or algo == "rloo"
    found = json.loads((folder / "rsoup.json").read_text())
    assert (found["algo"], found["steps"]) == (algo, 3)
    assert "trl" in found["versions"]


@pytest.mark.parametrize("algo", ALGOS)
def test_a_learnable_reward_goes_up_and_nothing_is_printed(
    tmp_path: Path, tiny_model: Path, algo: str, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = make_policy(tiny_model)
    training = TrainingSection(
        algo=algo,  # type: ignore[arg-type]
        steps=10,
        prompts_per_step=4,
        completions_per_prompt=8,
        learning_rate=0.02,
        ppo=PPOSection(epochs=2, kl_coef=0.0),
    )
    train_directly(
        policy, tmp_path, training, {"e": lambda completions: [text.count("e") for text in completions]}, {"e": 1.0}
    )
    lines = metrics(tmp_path)
    scores = [line["scores"]["e"] for line in lines]
    assert np.mean(scores[-3:]) > 1.2 * np.mean(scores[:3])
    assert [line["kl"] for line in lines] == [None] * 10  # TRL does not compute it without a coefficient
    assert capfd.readouterr() == ("", "")
    assert list(policy.peft.peft_config) == ["default"]
    assert not policy.peft.training


@pytest.mark.parametrize("algo", ALGOS)
def test_a_reward_that_fails_keeps_the_last_step(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, algo, left=2, end="nan")
    with pytest.raises(RewardError, match="returned nan for the completion"):
        train_brief(recipe)
    assert {path.name for path in (tmp_path / "run/adapters").iterdir()} == {"init"}
    assert (tmp_path / "run/checkpoints/brief/step-000002.safetensors").is_file()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_that_diverges_says_so(tmp_path: Path, tiny_model: Path, epochs: int) -> None:
    """With one pass a step it shows while sampling, with two in the gradient."""
    training = one_step("rloo", steps=3, learning_rate=1e30, ppo=PPOSection(epochs=epochs, kl_coef=0.0))
    with pytest.raises(RsoupError, match="Training has diverged: the gradient is not finite"):
        train_directly(make_policy(tiny_model), tmp_path, training, {"length": length}, {"length": 1.0})
