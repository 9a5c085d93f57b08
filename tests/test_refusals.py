"""What wrong input gets: one line what is wrong, one line what to do, and nothing is changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from command import Command, assert_refused
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.errors import RsoupError
from rsoup.files import sha256_file
from tiny import recipe_content, tree, write_recipe


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"rewards": ["positve"], "morl": []}, "no reward 'positve'", "Did you mean positive?"),
        ({"trainning": {}}, "unknown key trainning", "Did you mean training?"),
        ({"seed": "1"}, "seed is '1'", "Write seed without quotes."),
        ({"task": {"data": "absent.jsonl"}}, "absent.jsonl: there is no such data file", "Check the path"),
        ({"task": {"data": "{folder}/columns.jsonl"}}, "has no column 'post'", "Did you mean posts?"),
        ({"task": {"data": "{folder}/posts.jsonl", "template": "x"}}, "task.template", "Summarize"),
        ({"model": {"base": "{folder}"}}, "the folder is not a model", "save_pretrained"),
        ({"model": {"base": "{folder}/absent"}}, "there is no such model folder", "Check the path"),
        (
            {"model": {"base": "nobody/nothing"}},
            "nobody/nothing: is no folder here and not in the hub's cache",
            "HF_HUB_OFFLINE",
        ),
        ({"rewards": {"own": {"model": "{folder}"}}, "morl": []}, "the folder is not a model", "save_pretrained"),
        ({"rewards": {"own": {"function": "{folder}/own.py:own"}}, "morl": []}, "there is no file", "Check the path"),
        ({"rewards": {"own": {"function": "nowhere:own"}}, "morl": []}, "cannot be imported", "module:function"),
        ({"generation": {"max_new_tokens": 128}}, "no room for 128 new", "Lower generation.max_new_tokens"),
        ({"morl": [{"positve": 1.0}]}, "the weights name 'positve'", "Did you mean positive?"),
        ({"model": {"base": "{model}", "placement": "sharded"}}, "this is a single process", "accelerate launch"),
        (
            {"model": {"base": "{model}", "placement": "sharded", "quantization": "4bit"}},
            "4bit weights are packed with scales",
            "Set placement to spread",
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "train", "morl"])
def test_a_wrong_recipe_is_refused_before_anything_is_written(
    rsoup: Command,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    change: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "columns.jsonl").write_text('{"posts": "the lid"}\n')
    filled = json.loads(json.dumps(change).replace("{folder}", str(tmp_path)).replace("{model}", str(tiny_model)))
    content = {**recipe_content(tmp_path, tiny_model), **filled}
    recipe = write_recipe(tmp_path / "r.yaml", content)
    before = tree(tmp_path)
    words = ["--reward", next(iter(content["rewards"]))] if command == "train" else []
    words += ["--weights", f"{next(iter(content['rewards']))}=1"] if command == "morl" and not content["morl"] else []
    assert_refused(rsoup(command, recipe, *words), message, hint)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["run", "absent.yaml"], "absent.yaml: there is no such recipe", ""),
        (["train", "{recipe}"], "No reward is given", "--reward positive"),
        (["train", "{recipe}", "-r", "postive"], "no reward 'postive'", "Did you mean positive?"),
        (["train", "{recipe}", "-r", "brief", "--set", "training.steps=x"], "training.steps is 'x'", ""),
        (["train", "{recipe}", "-r", "brief", "--seed", "5"], "made with other settings", "--overwrite"),
        (["train", "-r", "brief"], "the flags: model is missing", "--model NAME"),
        (["train", "-r", "brief", "--model", "{recipe}"], "the flags: task is missing", "--data FILE"),
        (["morl", "{recipe}", "-w", "brief=a"], "is not NAME=WEIGHT", "positive=0.4"),
        (["morl", "{recipe}", "-w", "bref=1"], "the weights name 'bref'", "Did you mean brief?"),
        (["morl", "{recipe}", "-w", "brief=-1"], "morl.0.brief is -1.0", ""),
        (["eval", "{recipe}", "--adapters", "absent"], "absent", ""),
        (["eval", "{recipe}", "--adapters", "{other}"], "was trained on elsewhere", "model.base"),
        (["eval", "{recipe}", "--adapters", "{a}", "{other}"], "on a base with other weights", "one base model"),
        (["eval", "{recipe}", "--method", "svdd"], "evaluation.method is 'svdd'", ""),
        (["eval", "{recipe}", "--data", "absent.csv"], "there is no such data file", "Check the path"),
        (["mix", "{a}", "{b}", "-w", "0.5", "-w", "0.6", "-o", "out"], "sum to 1.1, not to 1", "--base-weight"),
        (["mix", "{a}", "{b}", "-w", "1", "-o", "out"], "1 weights for 2 adapters", "-w"),
        (["mix", "{a}", "{b}", "--check", "--into", "{run}"], "reads no base", "Leave --into out"),
        (["train", "--task", "sumary", "-r", "brief"], "no task 'sumary'", "Did you mean summary?"),
        (["mix", "{a}", "{b}", "-o", "out"], "No weights are given", "--lambda"),
        (["mix", "{a}", "{b}", "--lambda", "0.5"], "No output folder", "-o DIR"),
        (["mix", "{a}", "{other}", "--lambda", "0.5", "-o", "out"], "on a base with other weights", "one base model"),
        (["mix", "{a}", "absent", "--lambda", "0.5", "-o", "out"], "absent", ""),
        (["mix", "{a}", "{b}", "--lambda", "0.5", "-o", "{run}"], "", "-o"),
        (["mix", "{a}", "{b}", "--lambda", "0.5", "--into", "{run}", "-o", "out"], "", ""),
        (["pareto", "absent.json"], "absent.json", ""),
        (["pareto", "{schema}", "-o", "out"], "schema 99", ""),
        (["pareto", "{recipe}", "-o", "out"], "", ""),
        (["rewards", "{run}", "--template", "{{post}}"], "template", ""),
        (["train", "{recipe}", "-r", "breif"], "no reward 'breif'", "Did you mean brief?"),
        (["rewards", "faithfull"], "no reward 'faithfull'", "Did you mean faithful?"),
        (["recipes", "quikstart"], "quikstart: there is no such recipe", "Did you mean quickstart?"),
    ],
)
def test_a_wrong_word_is_refused_and_changes_nothing(
    rsoup: Command, run_copy: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str, hint: str
) -> None:
    folder = run_copy.parent
    monkeypatch.chdir(folder)
    other = Path(shutil.copytree(folder / "run/adapters/positive", folder / "other"))
    note = json.loads((other / "rsoup.json").read_text())
    note.update(name="other", base_model={"name": "elsewhere", "sha256": "0" * 64})
    (other / "rsoup.json").write_text(json.dumps(note))
    results = json.loads((folder / "run/eval/results.json").read_text())
    (folder / "schema.json").write_text(json.dumps({**results, "schema": 99}))
    names = {
        "recipe": run_copy,
        "run": folder / "run",
        "a": folder / "run/adapters/positive",
        "b": folder / "run/adapters/brief",
        "other": other,
        "schema": folder / "schema.json",
    }
    before = {name: sha256_file(folder / name) for name in tree(folder) if (folder / name).is_file()}
    assert_refused(rsoup(*(word.format(**names) for word in words)), message, hint)
    assert {name: sha256_file(folder / name) for name in tree(folder) if (folder / name).is_file()} == before
    assert not (folder / "out").exists()


def test_different_starts_are_mixed_only_when_allowed(
    rsoup: Command, tmp_path: Path, tiny_model: Path, tiny_run: Path
) -> None:
    content = recipe_content(tmp_path, tiny_model)
    recipe = write_recipe(tmp_path / "tiny.yaml", content)
    own = rsoup("train", recipe, "-r", "brief", "--seed", 3, "--steps", 1).lines[0]
    words = ["mix", tiny_run / "run/adapters/positive", own, "--lambda", 0.5, "-o", tmp_path / "out"]
    assert_refused(rsoup(*words), "started from different adapters", "--allow-different-starts")
    assert not (tmp_path / "out").exists()
    assert rsoup(*words, "--allow-different-starts").lines == [str(tmp_path / "out")]
    assert (tmp_path / "out" / WEIGHTS_FILE).is_file()


def test_what_a_terminal_would_take_for_orders_is_spelled_out() -> None:
    problem = RsoupError("a\x1b[2J\ud800 é", "b\x07")
    assert (problem.message, problem.hint) == ("a\\x1b[2J\\ud800 é", "b\\x07")
    assert str(problem) == "a\\x1b[2J\\ud800 é\nb\\x07"
