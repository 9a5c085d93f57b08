"""Reward functions written for TRL and verl run unchanged through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from trl.rewards import accuracy_reward, think_format_reward

from command import Command, assert_refused
from tiny import POSTS, recipe_content, write_recipe

VERL = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(ground_truth in solution_str.split()), "words": len(solution_str.split())}
"""
REWARDS = {
    "right": {"function": "trl.rewards:accuracy_reward"},
    "thought": {"function": "trl.rewards:think_format_reward"},
    "verl": {"function": "{folder}/verl_score.py:compute_score"},
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    """A recipe with rows that have a solution (one that cannot be read) and verl's ground truth."""
    (tmp_path / "verl_score.py").write_text(VERL)
    content = recipe_content(tmp_path, tiny_model)
    rows = [
        {
            "post": post,
            "solution": f"${n}$" if n else "",
            "reward_model": {"ground_truth": "kettle"},
            "data_source": "own",
        }
        for n, post in enumerate(POSTS)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content["task"] |= {"data": str(tmp_path / "rows.jsonl"), "eval_data": str(tmp_path / "rows.jsonl")}
    content["rewards"] = {
        name: {key: text.format(folder=tmp_path) for key, text in own.items()} for name, own in REWARDS.items()
    }
    content["morl"] = [{"right": 1, "thought": 1, "verl": 2}]
    content["training"]["steps"] = 1
    return write_recipe(tmp_path / "r.yaml", content)


def test_they_train_and_are_evaluated(rsoup: Command, recipe: Path, tmp_path: Path) -> None:
    assert rsoup("train", recipe, "--reward", "verl").code == 0
    assert rsoup("morl", recipe, "--weights", "right=1,thought=1,verl=2", "--algo", "rloo").code == 0
    for adapter in ("verl", "morl-1.00-1.00-2.00"):
        line = json.loads((tmp_path / "run" / "adapters" / adapter / "metrics.jsonl").read_text().splitlines()[0])
        assert line["scored"]["verl"] == line["scored"]["thought"] == line["sampled"] == 6
        assert line["logged"].keys() == {"verl/words"}
        assert line["extra"].keys() == {"right/solution", "right/gold_parsed", "right/answer_parsed"}
    called = rsoup("eval", recipe, "--adapters", tmp_path / "run" / "adapters" / "verl", "--json")
    assert called.code == 0, called.err
    scores = {name: own["n"] for name, own in json.loads(called.out)["points"][0]["scores"].items()}
    assert scores == {"right": 2, "thought": 3, "verl": 3}  # the first row's solution is empty
    table = pq.read_table(tmp_path / "run" / "eval" / "samples.parquet").to_pydict()
    chats = [[{"role": "assistant", "content": text}] for text in table["completion"]]
    solutions = ["", "$1$", "$2$"] * (len(chats) // 3)
    assert table["score:right"] == accuracy_reward(completions=chats, solution=solutions)
    assert table["score:thought"] == think_format_reward(completions=chats)
    assert table["score:verl"] == [float("kettle" in text.split()) for text in table["completion"]]


def test_a_text_is_scored_with_the_columns_that_are_given(rsoup: Command, recipe: Path, tmp_path: Path) -> None:
    shown = rsoup("rewards", "trl.rewards:accuracy_reward", "--completion", r"\boxed{42}", "--column", "solution=42")
    assert (shown.code, shown.lines[-1]) == (0, "score       1.0000")
    assert "solution    '42'" in shown.lines
    where = f"{tmp_path / 'verl_score.py'}:compute_score"
    given = ("--column", "data_source=x", "--reference", "lid", "--completion", "a lid")
    assert rsoup("rewards", where, *given).lines[-2:] == ["words       2.0", "score       1.0000"]
    assert_refused(
        rsoup("rewards", where, "--completion", "a lid"), "nothing gives its parameter 'data_source'", "--column"
    )
    assert_refused(rsoup("rewards", where, "--column", "x"), "--column x: is not name=value", "solution=42")
    assert rsoup("rewards", "math", "--completion", "4").lines[-1] == "score       none: it does not apply"


def test_a_function_that_says_nothing_of_shapes_gets_messages_where_it_fails_on_texts(
    rsoup: Command, tmp_path: Path
) -> None:
    (tmp_path / "own_shapes.py").write_text(
        "def chat(completions): return [float(len(c[0]['content'])) for c in completions]\n"
        "def times(completions, factor): return [f * len(c) for c, f in zip(completions, factor)]\n"
        "def wrong(completions): return 'no'\n"
    )
    called = rsoup("rewards", f"{tmp_path / 'own_shapes.py'}:chat", "--completion", "four")
    assert called.lines[0] == "reads       completions (as lists of messages)"
    assert called.lines[-1] == "score       4.0000"
    numbers = rsoup("rewards", f"{tmp_path / 'own_shapes.py'}:times", "--completion", "four", "--column", "factor=1.5")
    assert numbers.lines[-1] == "score       6.0000"
    assert_refused(rsoup("rewards", f"{tmp_path / 'own_shapes.py'}:wrong"), "not numbers: a str", "list of floats")


@pytest.mark.parametrize("command", ["train --reward verl", "run", "rewards check"])
def test_a_missing_column_is_told_before_anything_is_written(
    rsoup: Command, recipe: Path, tmp_path: Path, command: str
) -> None:
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"post": row["post"]}) + "\n" for row in rows))
    called = rsoup(*command.split(), recipe)
    assert_refused(called, "nothing gives its parameter", "The rows have post beside prompts, completions")
    assert not (tmp_path / "run").exists()


def test_another_column_makes_another_training(rsoup: Command, recipe: Path, tmp_path: Path) -> None:
    assert rsoup("train", recipe, "--reward", "verl").code == 0
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text.replace('kettle"}', 'lid"}'))
    assert_refused(rsoup("train", recipe, "--reward", "verl"), "made with other settings, data", "--overwrite")
