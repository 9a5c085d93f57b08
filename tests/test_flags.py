"""The command lines of the paper's code, by flags alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from command import Command, assert_refused
from rsoup.cli.options import make_recipe
from rsoup.errors import RecipeError
from rsoup.recipe_file import bundled_recipes, load_recipe
from rsoup.tiny import shrink

GPT2, BART = "Tristan/gpt2_reward_summarization", "CogComp/bart-faithful-summary-detector"
NEWS = {"task.name": "summary", "task.dataset": "news"}


def test_a_task_of_the_paper_takes_the_papers_settings() -> None:
    recipe, names = make_recipe(None, None, NEWS, [GPT2])
    papers = load_recipe(bundled_recipes()["paper-summary-news"])
    assert names == {"gpt2_reward_summarization": 1.0}
    assert list(recipe.rewards) == ["gpt2_reward_summarization"]
    assert recipe.rewards["gpt2_reward_summarization"] == papers.rewards["summary-gpt2"]
    assert recipe.model_copy(update={"rewards": {}, "morl": []}) == papers.model_copy(
        update={"rewards": {}, "morl": []}
    )


def test_the_difference_of_two_labels_is_asked_for_by_a_format() -> None:
    recipe, _ = make_recipe(None, None, NEWS, [BART], ["1-0"])
    assert recipe.rewards["bart-faithful-summary-detector"].format == "1-0"
    faithful, _ = make_recipe(None, None, NEWS, [BART], ["FAITHFUL"])
    assert faithful.rewards["bart-faithful-summary-detector"].format == "FAITHFUL"


def test_formats_with_weights_make_the_baseline() -> None:
    recipe, _ = make_recipe(None, None, NEWS, [GPT2, BART], ["0x0.4", "1-0x0.6"], weigh=True)
    assert recipe.morl == [{"gpt2_reward_summarization": 0.4, "bart-faithful-summary-detector": 0.6}]
    assert [section.format for section in recipe.rewards.values()] == ["0", "1-0"]
    plain, _ = make_recipe(None, None, NEWS, [GPT2, BART], weigh=True)
    assert plain.morl == [{"gpt2_reward_summarization": 1.0, "bart-faithful-summary-detector": 1.0}]


def test_an_evaluation_without_rewards_takes_those_of_the_task() -> None:
    recipe, names = make_recipe(None, None, NEWS)
    assert (list(recipe.rewards), names) == (["summary-gpt2", "faithful-bart"], {})


@pytest.mark.parametrize(
    ("task", "data_set", "name"),
    [
        ("summary", None, "paper-summary-news"),
        ("summary", "reddit", "paper-summary-reddit"),
        ("stack", None, "paper-stack"),
        ("review", None, "paper-review"),
        ("assistant", None, "paper-assistant"),
    ],
)
def test_each_task_has_its_recipe(task: str, data_set: str | None, name: str) -> None:
    recipe, _ = make_recipe(None, None, {"task.name": task, "task.dataset": data_set})
    assert recipe.name == name


def test_another_model_leaves_llamas_adapter_and_bits_behind() -> None:
    recipe, _ = make_recipe(None, ["training.steps=3"], {**NEWS, "model.base": "my/model"}, ["brief"])
    assert (recipe.model.base, recipe.model.start, recipe.model.quantization) == ("my/model", None, None)
    assert (recipe.training.steps, recipe.training.epochs) == (3, None)
    assert recipe.training.ppo.kl_coef == 0.05
    by_flag, _ = make_recipe(None, None, {**NEWS, "training.steps": 4})
    assert (by_flag.training.steps, by_flag.training.epochs) == (4, None)


def test_epochs_become_steps_when_the_rows_are_counted() -> None:
    training = load_recipe(bundled_recipes()["paper-summary-news"]).training
    assert training.for_rows(1000).steps == 2 * 1000 // 128
    assert training.for_rows(10).steps == 1
    assert load_recipe(bundled_recipes()["quickstart"]).training.for_rows(1000).steps == 10


@pytest.mark.parametrize(
    ("rewards", "formats", "message"),
    [
        ([GPT2, BART], ["1-0"], "1 formats are given for 2 rewards"),
        ([GPT2, GPT2], [], "there is another reward called gpt2_reward_summarization"),
        (["x/judge", "y/judge"], [], "there is another reward called judge"),
        (["brief"], ["1-0"], "rewards.brief: format is for a classifier"),
    ],
)
def test_rewards_that_do_not_go_together_are_refused(rewards: list[str], formats: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe(None, None, NEWS, rewards, formats)
    assert message in caught.value.message


def test_the_four_commands_of_the_paper_run(
    rsoup: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a small model, its rows and small judges in the places of their hub ids; nothing else is added."""
    small = shrink(load_recipe(bundled_recipes()["paper-summary-news"]), tmp_path / "stand-ins")
    monkeypatch.chdir(tmp_path)
    for hub_id, name in ((GPT2, "summary-gpt2"), (BART, "faithful-bart")):
        shutil.copytree(str(small.rewards[name].model), hub_id)
    words = ["--task", "summary", "--dataset", "news", "--model", small.model.base, "--data", small.task.data]
    few = ["--steps", "1", "--set", "training.prompts_per_step=2", "--set", "training.ppo.mini_batches=1"]

    first = rsoup("train", *words, *few, "--reward", GPT2, "-o", "r1")
    second = rsoup("train", *words, *few, "--reward", BART, "--format", "1-0", "-o", "r2")
    both = ["--reward", GPT2, "--format", "0x0.4", "--reward", BART, "--format", "1-0x0.6"]
    baseline = rsoup("morl", *words, *few, *both, "-o", "morl")
    assert first.lines == ["r1/adapters/gpt2_reward_summarization"]
    assert second.lines == ["r2/adapters/bart-faithful-summary-detector"]
    assert baseline.lines == ["morl/adapters/morl-0.40-0.60"]
    note = json.loads((tmp_path / baseline.lines[0] / "rsoup.json").read_text())
    assert note["rewards"] == {"gpt2_reward_summarization": 0.4, "bart-faithful-summary-detector": 0.6}
    assert "taking the settings of paper-summary-news" in first.err

    both = ["--reward", GPT2, "--reward", BART]
    adapters = ["--adapters", *first.lines, *second.lines, *baseline.lines]
    called = rsoup("eval", *words, *both, *adapters, "--lambdas", 3, "--prompts", 3, "-o", "front", "--json")
    results = json.loads(called.out)
    assert [point["lambda"] for point in results["points"]] == [None, 0.0, 0.5, 1.0, None]
    assert results["rewards"] == ["gpt2_reward_summarization", "bart-faithful-summary-detector"]


def test_a_wrong_word_of_these_commands_is_told(rsoup: Command) -> None:
    assert_refused(
        rsoup("train", "--task", "summary", "--dataset", "new", "--reward", "brief", "--model", "m/n"),
        "the task summary has no data set 'new'",
        "Did you mean news?",
    )
    assert_refused(
        rsoup("train", "--task", "sumary", "--reward", "brief", "--model", "m/n"), "no task 'sumary'", "summary"
    )
