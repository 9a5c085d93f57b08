"""Judges through the commands: shown, checked, trained on, measured, run; beside other rewards and beyond a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Command, assert_refused
from rewards.judges.server import KEY, MODEL, Endpoint
from rsoup.cli.info import _speed
from rsoup.rewards.judges.usage import USED
from tiny import recipe_content, write_recipe


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, endpoint: Endpoint) -> Path:
    """A recipe of two rewards, of which the server judges one by the length of the answer."""
    endpoint.says = lambda text: str(len(text.split("<answer ")[1]) % 10)
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"] = {"kind": {"judge": {"rubric": "Is it kind?", "model": MODEL, "base_url": endpoint.url}}}
    content["rewards"] |= {"brief": None}
    return write_recipe(tmp_path / "r.yaml", {**content, "morl": [{"kind": 0.5, "brief": 0.5}]})


def set_judge(recipe: Path, **settings: Any) -> Path:
    content = yaml.safe_load(recipe.read_text())
    content["rewards"]["kind"]["judge"] |= settings
    return write_recipe(recipe, content)


def test_rewards_shows_the_question_and_the_answer(recipe: Path, rsoup: Command) -> None:
    shown = rsoup("rewards", "kind", "--recipe", recipe, "--prompt", "a kettle", "--completion", "good")
    assert shown.code == 0
    assert f"judge       {MODEL} at http://127.0.0.1:" in shown.out
    assert "rubric      Is it kind?" in shown.out
    assert "\na kettle\n</prompt" in shown.out
    assert "\ngood\n</answer" in shown.out
    score = float(shown.lines[-1].removeprefix("score "))
    assert f"answered    {score:.0f}" in shown.lines


def test_check_scores_rows_and_says_what_it_cost(recipe: Path, rsoup: Command) -> None:
    checked = rsoup("rewards", "check", recipe)  # 2 held-out rows, each under its own post and under another
    assert checked.code == 0
    assert "note: kind: its judge was asked 4 times (400 tokens read, 8 written)" in checked.err


def test_check_shows_the_seconds_of_a_slow_judge_and_none_of_answers_that_were_there(
    recipe: Path, rsoup: Command, endpoint: Endpoint
) -> None:
    endpoint.pause = 0.1
    slow, again = (rsoup("rewards", "check", set_judge(recipe, concurrency=1)).lines for _ in range(2))
    speed = [next(line for line in lines if line.startswith("kind ")).split()[-1] for lines in (slow, again)]
    assert 1 <= float(speed[0]) <= 10
    assert speed[1] == "-"
    assert _speed(0.25) == "4.0 s each"


def test_a_run_trains_measures_and_reports_and_asks_nothing_twice(
    recipe: Path, rsoup: Command, endpoint: Endpoint, tmp_path: Path
) -> None:
    done = rsoup("run", recipe)
    assert done.code == 0, done.err
    assert len(endpoint.texts) == len(set(endpoint.texts))
    lines = (tmp_path / "run/adapters/morl-0.50-0.50/metrics.jsonl").read_text().splitlines()
    assert all(0 <= json.loads(line)["scores"]["kind"] <= 9 for line in lines)
    results = json.loads((tmp_path / "run/eval/results.json").read_text())
    assert results["rewards"] == ["brief", "kind"]
    timing = json.loads((tmp_path / "run/eval/timing.json").read_text())
    assert timing["judges"]["kind"]["calls"] > 0
    assert "kind: its judge was asked" in done.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(KEY.encode() in file.read_bytes() for file in files)
    assert KEY not in done.err + done.out
    count = len(endpoint.bodies)
    again = rsoup("run", recipe)
    assert (again.code, len(endpoint.bodies)) == (0, count)
    assert json.loads((tmp_path / "run/eval/timing.json").read_text())["judges"] == timing["judges"]


def test_a_budget_stops_a_training_and_the_same_command_ends_where_an_unbounded_one_does(
    recipe: Path, rsoup: Command, endpoint: Endpoint, tmp_path: Path
) -> None:
    content = yaml.safe_load(recipe.read_text())
    whole = rsoup("train", recipe, "--reward", "kind", "-o", tmp_path / "whole")
    assert whole.code == 0, whole.err
    asked = len(endpoint.bodies)
    USED.clear()
    judge = {**content["rewards"]["kind"]["judge"], "rubric": "Is it kind? ", "max_calls": asked // 2}
    write_recipe(recipe, {**content, "rewards": {"kind": {"judge": judge}, "brief": None}})
    words = ("train", recipe, "--reward", "kind", "-o", tmp_path / "parts")
    stopped = rsoup(*words)
    assert_refused(stopped, f"was asked {asked // 2} times, which is max_calls", "goes on from there")
    USED.clear()
    rest = rsoup(*words)
    if rest.code:
        USED.clear()
        rest = rsoup(*words)
    assert rest.code == 0, rest.err
    one, other = (tmp_path / name / "adapters/kind/adapter_model.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("command", ["run", "train", "eval"])
def test_a_wrong_model_is_refused_before_anything_is_made(
    command: str, recipe: Path, rsoup: Command, endpoint: Endpoint, tmp_path: Path, tiny_run: Path
) -> None:
    set_judge(recipe, model="judge-l")
    adapters = [tiny_run / "run/adapters" / name for name in ("positive", "brief")]
    words = {"run": (), "train": ("--reward", "kind"), "eval": ("--adapters", *adapters)}
    refused = rsoup(command, recipe, *words[command])
    assert_refused(refused, "has no model judge-l", "Did you mean judge-1?")
    assert len(endpoint.bodies) == 1
    made = [path.name for path in (tmp_path / "run").rglob("*.safetensors")] if (tmp_path / "run").exists() else []
    assert made == []


def test_a_missing_reference_is_refused_where_answers_are_compared(
    recipe: Path, rsoup: Command, endpoint: Endpoint, tmp_path: Path
) -> None:
    set_judge(recipe, pairwise=True)
    assert_refused(rsoup("run", recipe), "kind applies to none of the", "task.reference")
    assert endpoint.bodies == []
    assert not (tmp_path / "run").exists()


def test_tiny_asks_no_endpoint(recipe: Path, rsoup: Command, endpoint: Endpoint, tmp_path: Path) -> None:
    done = rsoup("run", recipe, "--tiny", "-o", tmp_path / "small")
    assert done.code == 0, done.err
    assert endpoint.bodies == []
    data = yaml.safe_load(recipe.read_text())["task"]["data"]
    assert done.err.splitlines()[:2] == [
        f"Random small models stand in, on the rows of {data}: the numbers mean nothing.",
        f"No endpoint is asked: a random small model judges in the place of that of kind ({MODEL}).",
    ]
