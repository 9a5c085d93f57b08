"""Trainings together on one base: what each gives is what it gives alone, however they began and ended."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from command import Command, assert_refused
from rsoup.errors import RecipeError, RewardError
from rsoup.locks import lock_file, my_turn
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.stages.graph import trainings_of
from rsoup.training.expert import train_adapter
from rsoup.training.folders import adapter_folder, checkpoint_folder
from rsoup.training.together import check_together, train_adapters
from tiny import build_adapter, recipe_content, tree, write_recipe

from .directly import metrics

WEIGHTS = "adapter_model.safetensors"
REWARDS = '''
from pathlib import Path

def es(completions):
    return [float(text.count("e")) for text in completions]

def brief(completions):
    """Score brevity until the countdown in the file beside this one is over."""
    counter = Path(__file__).with_name("countdown")
    left = int(counter.read_text())
    if left == 0:
        raise KeyboardInterrupt
    counter.write_text(str(left - 1))
    return [-float(len(text.split())) for text in completions]
'''
SETTINGS: dict[str, dict[str, Any]] = {
    "two experts, adaptive KL, running scale, mini-batches": {
        "score_scaling": "running",
        "score_clip": 2.0,
        "ppo": {"epochs": 2, "mini_batches": 2, "kl_coef": 0.05, "kl_target": 0.5, "kl_horizon": 50},
        "morl": [],
    },
    "three, dropout, entropy, parts of mini-batches, drawn lengths": {
        "prompts_per_pass": 1,
        "ppo": {"epochs": 2, "kl_coef": 0.05, "entropy_coef": 0.01},
        "dropout": 0.2,
        "min_new_tokens": 2,
    },
    "three, from an adapter, the rollout's own pass first, memory saved": {
        "score_scaling": "normalize_then_sum",
        "missing_eos_penalty": 0.5,
        "start": True,
    },
    "layers computed again": {"gradient_checkpointing": True, "morl": []},
}


def make_recipe(folder: Path, model: Path, left: int = 10_000, **settings: Any) -> Recipe:
    """Return a recipe of two experts and a baseline; ``left`` calls of a reward later it is interrupted."""
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(REWARDS)
    (folder / "countdown").write_text(str(left))
    content = recipe_content(folder, model)
    content["rewards"] = {name: {"function": f"{folder / 'own.py'}:{name}"} for name in ("brief", "es")}
    content["morl"] = settings.pop("morl", [{"es": 0.5, "brief": 0.5}])
    content["model"]["lora"]["dropout"] = settings.pop("dropout", 0.0)
    content["generation"]["min_new_tokens"] = settings.pop("min_new_tokens", None)
    if settings.pop("start", False):
        content["model"]["start"] = str(build_adapter(folder / "given", model, seed=1))
        del content["model"]["lora"]
    content["training"] |= {"prompts_per_step": 4, **settings}
    return load_recipe(write_recipe(folder / "r.yaml", content))


def train_each(recipe: Recipe) -> None:
    resolved = resolve(recipe)
    for own in trainings_of(recipe):
        train_adapter(resolved, own.name, own.weights, own.kind, Silent())


def train_all(recipe: Recipe, progress: Silent | None = None) -> list[str]:
    return [own.name for own in train_adapters(resolve(recipe), trainings_of(recipe), progress or Silent())]


def assert_alike(recipe: Recipe, expected: Recipe) -> None:
    """Check that two runs have the same adapters, metrics and files up to rounding and time."""
    for own in trainings_of(recipe):
        folder, other = adapter_folder(recipe, own.name), adapter_folder(expected, own.name)
        assert tree(folder) == tree(other)
        for line, wanted in zip(metrics(folder), metrics(other), strict=True):
            assert line == approximately(wanted)
        found, tensors = load_file(folder / WEIGHTS), load_file(other / WEIGHTS)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_allclose(found[name], tensor, rtol=1e-3, atol=1e-5, err_msg=name)
        assert (folder / "adapter_config.json").read_bytes() == (other / "adapter_config.json").read_bytes()
        told, wanted = (json.loads((path / "rsoup.json").read_text()) for path in (folder, other))
        timed = {"seconds", "sha256", "score_statistics"}
        assert {key: told[key] for key in told.keys() - timed} == {key: wanted[key] for key in wanted.keys() - timed}
        assert told["score_statistics"] == approximately(wanted["score_statistics"])
    assert not tree(recipe.folder / "checkpoints")


def approximately(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: approximately(own) for key, own in value.items()}
    return pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.parametrize("name", SETTINGS)
def test_together_is_each_alone(tmp_path: Path, tiny_model: Path, name: str) -> None:
    together = make_recipe(tmp_path, tiny_model, **SETTINGS[name])
    alone = together.model_copy(update={"output": str(tmp_path / "alone")})
    train_each(alone)
    assert train_all(together) == [own.name for own in trainings_of(together)]
    assert_alike(together, alone)
    init = [load_file(adapter_folder(recipe, "init") / WEIGHTS) for recipe in (alone, together)]
    assert all((init[0][key] == init[1][key]).all() for key in init[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Recipe:
    """Three trainings that were made one after another."""
    recipe = make_recipe(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    train_each(recipe)
    return recipe


def beginning(recipe: Recipe, folder: Path, left: int) -> Recipe:
    """Return the same trainings in a folder of their own, to be interrupted after some calls of a reward."""
    counter_of(recipe).write_text(str(left))
    return recipe.model_copy(update={"output": str(folder / "run")})


def counter_of(recipe: Recipe) -> Path:
    return recipe.folder.parent / "countdown"


def steps_kept(recipe: Recipe) -> dict[str, int]:
    """Return the last step of each training that was kept."""
    folders = {own.name: checkpoint_folder(recipe, own.name) for own in trainings_of(recipe)}
    names = {name: sorted(path.stem for path in folder.glob("step-*")) for name, folder in folders.items()}
    return {name: int(own[-1].removeprefix("step-")) for name, own in names.items() if own}


@pytest.mark.parametrize("left", [0, 4, 7])
def test_an_interrupted_run_goes_on_together(tmp_path: Path, undisturbed: Recipe, left: int) -> None:
    recipe = beginning(undisturbed, tmp_path, left)
    with pytest.raises(KeyboardInterrupt):
        train_all(recipe)
    assert steps_kept(recipe) == ({own.name: left // 3 for own in trainings_of(recipe)} if left else {})
    assert not [own.name for own in trainings_of(recipe) if adapter_folder(recipe, own.name).exists()]
    counter_of(undisturbed).write_text(str(9 - left // 3 * 3))  # no step that was kept is made again
    train_all(recipe)
    assert_alike(recipe, undisturbed)


def test_what_was_begun_one_by_one_goes_on_together(tmp_path: Path, undisturbed: Recipe) -> None:
    recipe = beginning(undisturbed, tmp_path, 5)
    with pytest.raises(KeyboardInterrupt):
        train_each(recipe)
    assert steps_kept(recipe) == {"es": 2}
    first = adapter_folder(recipe, "brief")
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    counter_of(undisturbed).write_text("4")
    train_all(recipe)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert_alike(recipe, undisturbed)


def test_what_was_begun_together_goes_on_one_by_one(tmp_path: Path, undisturbed: Recipe) -> None:
    recipe = beginning(undisturbed, tmp_path, 4)
    with pytest.raises(KeyboardInterrupt):
        train_all(recipe)
    counter_of(undisturbed).write_text("6")
    train_each(recipe)
    assert_alike(recipe, undisturbed)


def test_a_training_that_ends_before_the_others_is_written_at_once(tmp_path: Path, undisturbed: Recipe) -> None:
    """The reward is asked nine times alone; here the second training has two steps left and the third has three."""
    recipe = beginning(undisturbed, tmp_path, 4)
    with pytest.raises(KeyboardInterrupt):
        train_each(recipe)
    assert steps_kept(recipe) == {"es": 1}
    counter_of(undisturbed).write_text("4")
    with pytest.raises(KeyboardInterrupt):
        train_all(recipe)
    assert adapter_folder(recipe, "es").is_dir()
    assert steps_kept(recipe) == {"morl-0.50-0.50": 2}
    counter_of(undisturbed).write_text("1")
    train_all(recipe)
    assert_alike(recipe, undisturbed)


def test_nothing_is_done_twice(tmp_path: Path, undisturbed: Recipe) -> None:
    counter_of(undisturbed).write_text("0")
    assert train_all(undisturbed) == [own.name for own in trainings_of(undisturbed)]


def test_the_seconds_of_all_are_those_of_the_run(tmp_path: Path, undisturbed: Recipe) -> None:
    recipe = beginning(undisturbed, tmp_path, 100)
    began = time.perf_counter()
    train_all(recipe)
    wall = time.perf_counter() - began
    told = [metrics_of(adapter_folder(recipe, own.name))[-1]["seconds"] for own in trainings_of(recipe)]
    assert wall / 4 < sum(told) <= wall


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_reward_that_fails_stops_all_and_names_the_training(tmp_path: Path, undisturbed: Recipe) -> None:
    content = undisturbed.model_dump()
    (tmp_path / "own.py").write_text(REWARDS)
    (tmp_path / "countdown").write_text("100")
    broken = "def es(completions):\n    return [float('nan')] * len(completions)\n"
    (tmp_path / "broken.py").write_text(broken)
    content |= {"output": str(tmp_path / "run"), "morl": []}
    content["rewards"]["es"]["function"] = f"{tmp_path / 'broken.py'}:es"
    recipe = Recipe.model_validate(content)
    with pytest.raises(RewardError) as caught:
        train_all(recipe)
    assert caught.value.message.startswith("brief: The reward es returned nan")
    assert str(tmp_path / "run/checkpoints/brief/failed_sample.json") in caught.value.hint
    assert not list((tmp_path / "run/adapters").glob("[!i]*"))


def test_what_another_worker_is_making_is_left_to_it(tmp_path: Path, undisturbed: Recipe) -> None:
    recipe = beginning(undisturbed, tmp_path, 100)
    with my_turn(lock_file(recipe.folder, "brief")):
        assert train_all(recipe) == ["es", "morl-0.50-0.50"]
    assert not adapter_folder(recipe, "brief").exists()
    assert train_all(recipe) == ["brief", "es", "morl-0.50-0.50"]
    assert_alike(recipe, undisturbed)


class Showing(Silent):
    """Keeps what bars show."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        self.shown.append((stage, total, done))


def test_each_training_has_a_bar(tmp_path: Path, undisturbed: Recipe) -> None:
    progress = Showing()
    train_all(beginning(undisturbed, tmp_path, 100), progress)
    for own in trainings_of(undisturbed):
        assert [entry for entry in progress.shown if entry[0] == own.name] == [(own.name, 3, done) for done in range(4)]


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"training.algo": "grpo"}, {}, "training.together is for PPO: GRPO is TRL's, whose trainer has one adapter"),
    ({}, {"workers": True}, "--ray gives each training a worker of its own"),
    ({}, {"processes": 2}, "training.together trains all adapters in one process, and a launcher has started 2"),
    ({"training.report_to": ["wandb"]}, {}, "training.report_to wandb: it logs one training of a process at a time"),
    (
        {"training.gradient_checkpointing": True, "model.lora.dropout": 0.1},
        {},
        "layers that training.gradient_checkpointing computes again would not draw each adapter's dropout again",
    ),
    ({"training.sampling": "vllm"}, {}, "in one pass of its own, not with vLLM"),
    ({"model.placement": "sharded"}, {}, "model.placement sharded splits the base over several"),
    ({"model.quantization": "8bit"}, {}, "model.quantization 8bit: its products depend on the rows beside a row"),
]


@pytest.mark.parametrize(("settings", "surroundings", "message"), REFUSED)
def test_what_cannot_go_together_is_refused_with_the_reason(
    tiny_recipe: Path, settings: dict[str, Any], surroundings: dict[str, Any], message: str
) -> None:
    check_together(load_recipe(tiny_recipe, flags=settings), **surroundings)
    with pytest.raises(RecipeError) as caught:
        check_together(load_recipe(tiny_recipe, flags={**settings, "training.together": True}), **surroundings)
    assert message in caught.value.message
    assert "training.together" in caught.value.hint or "one of them" in caught.value.hint


def test_run_trains_together_and_refuses_before_anything_is_written(rsoup: Command, run_copy: Path) -> None:
    together = "--set", "training.together=true"
    folder = run_copy.parent / "run"
    assert_refused(
        rsoup("run", run_copy, *together, "--algo", "rloo", "-o", run_copy.parent / "other"),
        "training.together is for PPO: RLOO is TRL's",
        "Leave training.together out",
    )
    assert not (run_copy.parent / "other").exists()
    before = {name: metrics(folder / "adapters" / name) for name in ("positive", "brief", "morl-0.50-0.50")}
    shutil.rmtree(folder)
    assert rsoup("run", run_copy, *together).code == 0
    for name, lines in before.items():
        assert [approximately(line) for line in lines] == metrics(folder / "adapters" / name)


def test_train_makes_the_adapters_of_a_command_together(rsoup: Command, tiny_recipe: Path) -> None:
    words = "--reward", "positive", "--reward", "brief", "--set", "training.together=true"
    called = rsoup("train", tiny_recipe, *words)
    assert called.code == 0
    folders = [tiny_recipe.parent / "run/adapters" / name for name in ("positive", "brief")]
    assert called.out.split() == [str(folder) for folder in folders]
    assert all((folder / WEIGHTS).is_file() for folder in folders)
