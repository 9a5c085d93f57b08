"""The bundled recipes: each is valid, says what it should of itself, and runs with small stand-ins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from command import Command
from rsoup import experiment
from rsoup.errors import DataError
from rsoup.evaluation.sweep import evaluate
from rsoup.models.bundled import BUNDLED
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import bundled_recipes, dump_recipe, load_recipe
from rsoup.resolve import resolve
from rsoup.rewards import JUDGES, REWARDS
from rsoup.tasks import TASKS, resolve_task
from rsoup.tiny import shrink, stand_ins
from rsoup.training.expert import train_adapter

RECIPES = bundled_recipes()
PAPERS = {
    "paper-summary-news": (("summary", "news"), ["summary-gpt2", "faithful-bart"], 0.05, 2),
    "paper-summary-reddit": (("summary", "reddit"), ["summary-gpt2", "faithful-bart"], 0.05, 1),
    "paper-stack": (("stack", None), ["answer-deberta-base", "answer-electra-large"], 0.2, 1),
    "paper-review": (("review", None), ["answer-deberta-base", "answer-electra-large"], 0.2, 1),
    "paper-assistant": (
        ("assistant", None),
        ["answer-deberta-large-v2", "answer-electra-large", "answer-deberta-base-v2", "answer-deberta-base"],
        0.2,
        1,
    ),
}
"""Task and data set, rewards, KL coefficient and epochs of the paper's five experiments."""


def header(path: Path) -> dict[str, str]:
    """Return what the first comment of a recipe says, by its first words."""
    lines = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") and len(line) <= 120 for line in lines), path
    return {"what": lines[0][1:].strip()} | {
        match[1]: match[2] for line in lines if (match := re.match(r"# (\w+) +(.+)", line)) and len(match[1]) < 6
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_it_needs_and_says_how_to_run_it(name: str) -> None:
    recipe = load_recipe(RECIPES[name])
    said = header(RECIPES[name])
    assert recipe.name == name
    assert {"needs", "time", "run", "gave"} <= said.keys()
    assert said["run"].split() in (["rsoup", "run", name], ["rsoup", "run", f"recipes/{name}.yaml"])
    assert resolve_task(recipe.task)


def test_the_papers_recipes_have_the_settings_of_its_table_1() -> None:
    for name, ((task, data_set), rewards, kl_coef, epochs) in PAPERS.items():
        recipe = load_recipe(RECIPES[name])
        assert (recipe.task.name, recipe.task.dataset) == (task, data_set)
        assert list(recipe.rewards) == rewards
        model, training, ppo = recipe.model, recipe.training, recipe.training.ppo
        assert (model.base, model.quantization) == ("huggyllama/llama-7b", "8bit")
        assert model.start == "tloen/alpaca-lora-7b"
        assert (training.algo, training.learning_rate, training.epochs) == ("ppo", 1.41e-5, epochs)
        assert (training.prompts_per_step, training.completions_per_prompt) == (128, 1)
        assert training.prompts_per_step // ppo.mini_batches == 4
        assert (ppo.epochs, ppo.cliprange, ppo.cliprange_value, ppo.vf_coef) == (4, 0.2, 0.2, 0.1)
        assert (ppo.gamma, ppo.gae_lambda) == (1, 0.95)
        assert (ppo.kl_coef, ppo.kl_target, ppo.kl_horizon) == (kl_coef, 6, 10_000)
        generation = recipe.generation
        assert (generation.min_new_tokens, generation.max_new_tokens) == (16, 31)
        assert (generation.temperature, generation.stop_at_eos) == (1, False)
        evaluation = recipe.evaluation
        assert (evaluation.prompts, evaluation.max_new_tokens, evaluation.temperature) == (200, 32, 0)
        assert evaluation.lambdas == (11 if len(rewards) == 2 else 5)
        task_settings = resolve_task(recipe.task)
        assert task_settings.prefix == (2, 7)


def test_each_experiment_has_a_counterpart_on_a_small_model_with_the_same_rewards() -> None:
    for name, (_, rewards, _, _) in PAPERS.items():
        recipe = load_recipe(RECIPES[name.removeprefix("paper-")])
        assert list(recipe.rewards) == rewards
        assert recipe.task.name == load_recipe(RECIPES[name]).task.name
        assert recipe.model.base != "huggyllama/llama-7b"


def test_there_are_recipes_for_three_and_four_rewards_and_for_every_algorithm() -> None:
    recipes = [load_recipe(path) for path in RECIPES.values()]
    assert {len(recipe.rewards) for recipe in recipes} == {2, 3, 4}
    assert {recipe.training.algo for recipe in recipes} == {"ppo", "rloo", "grpo"}


def test_every_task_and_every_judge_is_in_a_recipe() -> None:
    recipes = [load_recipe(path) for path in RECIPES.values()]
    assert {recipe.task.name for recipe in recipes if recipe.task.name} == set(TASKS)
    assert {section.model for recipe in recipes for section in recipe.rewards.values()} >= set(JUDGES)


# Stand-ins


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "study"])  # which is tried as a whole below
def test_a_recipe_trains_and_evaluates_with_small_stand_ins(name: str, tmp_path: Path) -> None:
    whole = load_recipe(RECIPES[name])
    recipe = shrink(whole, tmp_path / "run")
    resolve(recipe).check()
    for training in experiment.trainings_of(recipe):
        train_adapter(resolve(recipe), training.name, training.weights, training.kind, Silent())
    results = evaluate(resolve(recipe), experiment.ingredients_of(recipe), tmp_path / "run/eval", Silent())
    assert results.rewards == tuple(whole.rewards)
    experts = whole.models or {"base": None, **whole.rewards}
    assert {point.id for point in results.points} >= set(experts)
    assert len(whole.morl) == sum(point.kind == "morl" for point in results.points)
    assert Recipe.model_validate(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", ["paper-summary-news", "paper-assistant", "study"])
def test_a_whole_run_with_small_stand_ins_ends_with_a_report(
    name: str,
    rsoup: Command,
    tmp_path: Path,
) -> None:
    called = rsoup("run", name, "--tiny", "-o", tmp_path / "run")
    assert called.lines[-1] == str(tmp_path / "run/report/index.html")
    assert "the numbers mean nothing" in called.err
    assert (tmp_path / "run/report/index.html").is_file()


def test_stand_ins_have_the_architectures_and_labels_of_what_they_stand_for(tmp_path: Path) -> None:
    recipe = shrink(load_recipe(RECIPES["paper-summary-news"]), tmp_path)
    kinds = {
        name: json.loads((Path(str(section.model)) / "config.json").read_text())
        for name, section in recipe.rewards.items()
    }
    assert {name: config["model_type"] for name, config in kinds.items()} == {
        "summary-gpt2": "gpt2",
        "faithful-bart": "bart",
    }
    assert kinds["faithful-bart"]["id2label"] == {"0": "HALLUCINATED", "1": "FAITHFUL"}
    assert json.loads((Path(recipe.model.base) / "config.json").read_text())["model_type"] == "llama"
    assert recipe.rewards["faithful-bart"].template == "{completion}{eos}{eos}{post}"
    assert (recipe.training.prompts_per_step, recipe.training.steps) == (8, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert len(before) == 4
    assert shrink(load_recipe(RECIPES["paper-summary-news"]), tmp_path) == recipe
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before


def test_a_changed_recipe_gets_other_stand_ins_in_the_same_run(tmp_path: Path) -> None:
    """A run's folder may hold stand-ins of an earlier try."""
    content = {"model": {"base": "m/n"}, "task": {"name": "stack"}, "rewards": {"a": {"model": "x/y", "format": "0"}}}
    other = {**content, "model": {"base": "m/qwen2"}, "rewards": {"a": {"model": "x/y", "format": "1-0"}}}
    first, second = (shrink(Recipe.model_validate(one), tmp_path) for one in (content, other))
    assert first.model.base != second.model.base
    assert first.rewards["a"].model != second.rewards["a"].model


@pytest.mark.parametrize(
    ("base", "architecture"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2"),
        ("Qwen/Qwen3-1.7B", "qwen3"),
        ("mistralai/Mistral-7B-v0.3", "mistral"),
        ("google/gemma-2-2b-it", "gemma2"),
        ("someone/their-own-model", "llama"),
        ("smollm2-135m-instruct", "llama"),
        ("{folder}", "gpt2"),
    ],
)
def test_a_policy_takes_its_architecture_from_its_folder_or_its_name(
    base: str, architecture: str, tmp_path: Path
) -> None:
    from rsoup.models.load import load_language_model

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    content = {"model": {"base": base.format(folder=tmp_path)}, "task": {"name": "stack"}, "rewards": {"brief": {}}}
    recipe = shrink(Recipe.model_validate(content), tmp_path / "run")
    model = load_language_model(recipe.model.base, revision=None, dtype="float32")
    assert model.config.model_type == architecture
    assert torch.isfinite(model.head.weight).all()


def test_a_reward_model_that_is_not_known_gets_the_labels_of_its_format(tmp_path: Path) -> None:
    rewards = {"a": {"model": "x/y", "format": "toxic-neutral"}, "b": {"model": "x/z", "format": "2"}}
    content = {"model": {"base": "m/n"}, "task": {"name": "stack"}, "rewards": rewards}
    recipe = shrink(Recipe.model_validate(content), tmp_path)
    labels = [
        json.loads((Path(str(section.model)) / "config.json").read_text())["id2label"]
        for section in recipe.rewards.values()
    ]
    assert [list(one.values()) for one in labels] == [["toxic", "neutral"], ["LABEL_0", "LABEL_1", "LABEL_2"]]


def test_data_that_are_here_are_kept_and_others_are_made_up_by_their_columns(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "the lid"}\n' * 4)
    content = {"model": {"base": "m/n"}, "rewards": {"brief": {}}, "task": {"data": str(own), "column": "text"}}
    assert shrink(Recipe.model_validate(content), tmp_path / "a").task == Recipe.model_validate(content).task
    content["task"] = {"data": "someone/rows", "column": "text", "reference": "answer"}
    made = shrink(Recipe.model_validate(content), tmp_path / "b").task
    rows = [json.loads(line) for line in Path(str(made.data)).read_text().splitlines()]
    assert rows[0].keys() == {"id", "text", "answer"}
    assert {row["text"] for row in rows}.isdisjoint(
        json.loads(line)["text"] for line in Path(str(made.eval_data)).read_text().splitlines()
    )


def test_rows_of_an_unknown_shape_cannot_be_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    entry = TASKS["stack"]
    own = replace(entry.data_sets["stack"], read=lambda row: row)
    monkeypatch.setitem(TASKS, "stack", replace(entry, data_sets={"stack": own}))
    with pytest.raises(DataError, match="a shape of its own"):
        shrink(load_recipe(RECIPES["paper-stack"]), tmp_path)


def test_the_registry_and_the_bundled_models_are_those_that_recipes_name() -> None:
    for path in RECIPES.values():
        content = yaml.safe_load(path.read_text())
        assert set(content["rewards"]) <= set(REWARDS)
        base = content["model"]["base"]
        assert base in BUNDLED or base.count("/") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quickstart", "on the rows of the task reviews"),
        ("reasoning", "on rows of "),
        ("summary-news", "on made-up rows, as argilla/news-summary is not on this machine"),
    ],
)
def test_what_a_tiny_run_stands_on_is_said_as_it_is(name: str, said: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES[name])
    [line] = stand_ins(recipe, shrink(recipe, tmp_path))
    assert line.startswith(f"Random small models stand in, {said}")
