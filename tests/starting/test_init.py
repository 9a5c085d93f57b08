"""``rsoup init``: a recipe that runs, from data of any shape, or two lines why not."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import Command, assert_refused
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from tiny import POSTS, build_tiny_model, tree

CHAT = "{% for m in messages %}{{ m['content'] }} : {% endfor %}"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template."""
    folder = build_tiny_model(tmp_path_factory.mktemp("chat") / "model", seed=1)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def turn(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


SHAPES: dict[str, list[dict[str, Any]]] = {
    "table.csv": [{"text": post} for post in POSTS],
    "chat.jsonl": [{"messages": [turn(post), turn("great lid", "assistant")]} for post in POSTS],
    "prompts.jsonl": [{"prompt": [turn(post)], "solution": str(n)} for n, post in enumerate(POSTS)],
    "texts.jsonl": [{"prompt": post} for post in POSTS],
    "verl.parquet": [
        {"prompt": [turn(post)], "reward_model": {"style": "rule", "ground_truth": str(n)}, "data_source": "x"}
        for n, post in enumerate(POSTS)
    ],
    "pairs.jsonl": [{"prompt": post, "chosen": "great lid", "rejected": "bad lid"} for post in POSTS],
    "implicit.jsonl": [
        {key: [turn(post), turn(answer, "assistant")] for key, answer in (("chosen", "great"), ("rejected", "bad"))}
        for post in POSTS
    ],
}


def write(folder: Path, name: str) -> Path:
    """Write rows in the form that the ending of a file names."""
    path, rows = folder / name, SHAPES[name]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_data_of_each_shape_get_a_recipe_that_resolves(
    name: str, rsoup: Command, tmp_path: Path, chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path, name)
    called = rsoup("init", data.name, "--model", chat_model, "--reward", "brief", "--reward", "varied", "--yes")
    assert (called.code, called.out) == (0, f"{data.stem}.yaml\n"), called.err
    recipe = load_recipe(tmp_path / f"{data.stem}.yaml")
    assert list(recipe.rewards) == ["brief", "varied"]
    assert recipe.task.data == data.name
    assert recipe.morl == [{"brief": 0.5, "varied": 0.5}]
    resolved = resolve(recipe)
    resolved.check()
    first = resolved.training_examples.rows[0]
    assert first.prompt == f"{POSTS[0]} : "  # through the chat template
    assert recipe.evaluation.prompts == len(resolved.held_out_examples.rows)


def test_the_proposed_rewards_are_written_and_the_run_ends_with_a_report(
    rsoup: Command, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path, "texts.jsonl")
    called = rsoup("init", data, "--model", tiny_model, "--yes", "-o", "mine.yaml")
    assert called.code == 0
    assert "rewards: faithful length" in called.err.splitlines()
    text = (tmp_path / "mine.yaml").read_text()
    assert all(len(line) <= 120 for line in text.splitlines() if str(tmp_path) not in line)
    assert "chat: true would wrap" in text
    few = ["--set", "training.steps=1", "--set", "generation.max_new_tokens=4", "--set", "evaluation.max_new_tokens=4"]
    ran = rsoup("run", "mine.yaml", *few, "--set", "rewards.faithful.use=varied")
    assert ran.lines[-1] == "runs/mine/report/index.html"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["{data}"], "model: is not given", "--yes"),
        ([], "data: is not given", "--yes"),
        (["absent.jsonl", "--yes"], "no such data file", "Check the path"),
        (["{data}", "--yes", "--model", "absent/folder/x"], "no such model folder", "Known: smollm2"),
        (
            ["{data}", "--yes", "--model", "nobody/nothing"],
            "nobody/nothing: is no folder here and not in the hub's cache",
            "HF_HUB_OFFLINE",
        ),
        (["{data}", "--yes", "--model", "{model}", "--reward", "brief"], "is 1 reward", "two or more"),
        (["{data}", "--yes", "--model", "{model}", "--size", "huge"], "is none of try, real", "Known"),
        (["{data}", "--yes", "--model", "{model}", "-o", "{data}.d"], "is a folder", "-o mine.yaml"),
        (["{data}", "--yes", "--model", "{model}", "-r", "brief", "-r", "exact"], "exact applies to none", "reference"),
        (["{data}", "--yes", "--model", "{model}", "-r", "brief", "-r", "{own}"], "nothing gives", "columns"),
    ],
)
def test_what_cannot_be_used_is_two_lines_and_no_file(
    words: list[str], message: str, hint: str, rsoup: Command, tmp_path: Path, tiny_model: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    data, own = write(tmp_path, "texts.jsonl"), tmp_path / "own.py"
    own.write_text("def odd(completions, nowhere):\n    return [0.0] * len(completions)\n")
    (tmp_path / "texts.jsonl.d").mkdir()
    before = tree(tmp_path)
    filled = [word.format(data=data, model=tiny_model, own=own) for word in words]
    assert_refused(rsoup("init", *filled), message, hint)
    assert tree(tmp_path) == before


OWN = """
def turns(prompts, completions):
    return [float(len(p[-1]["content"]) + len(c[0]["content"])) for p, c in zip(prompts, completions)]
def texts(completions):
    return [float(len(c.split())) for c in completions]
"""


@pytest.mark.parametrize(("name", "fails"), [("prompts.jsonl", "texts"), ("texts.jsonl", "turns")])
def test_functions_are_tried_with_what_the_training_will_give_them(
    name: str, fails: str, rsoup: Command, tmp_path: Path, chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of conversations give messages, others texts; what fails there is told, and the recipe is written."""
    monkeypatch.chdir(tmp_path)
    data, own = write(tmp_path, name), tmp_path / "own.py"
    own.write_text(OWN)
    called = rsoup("init", data.name, "--model", chat_model, "--reward", own.name, "--yes")
    assert (called.code, called.out) == (0, f"{data.stem}.yaml\n"), called.err
    told = [line for line in called.err.splitlines() if line.startswith("warning:")]
    assert len(told) == 1
    assert told[0].startswith(f"warning: The reward {fails} raised ")
    recipe = f"{data.stem}.yaml"
    for reward in ("turns", "texts"):
        tried = rsoup("rewards", reward, "--recipe", recipe, "--prompt", "a lid", "--completion", "good lid")
        if reward == fails:
            assert_refused(tried, f"The reward {fails} raised", "lists of messages")
        else:
            assert tried.lines[-1] == f"score       {'13' if reward == 'turns' else '2'}.0000"
    assert rsoup("rewards", "own.py:turns", "--prompt", "a lid", "--completion", "good lid").lines[-1][-7:] == "13.0000"


def test_a_recipe_that_is_there_is_kept_unless_it_may_be_replaced(
    rsoup: Command, tmp_path: Path, tiny_model: Path
) -> None:
    data, recipe = write(tmp_path, "texts.jsonl"), tmp_path / "r.yaml"
    recipe.write_text("name: precious\n")
    words = ["init", data, "--model", tiny_model, "--reward", "brief", "--reward", "varied", "--yes", "-o", recipe]
    assert_refused(rsoup(*words), "is there already", "--overwrite")
    assert recipe.read_text() == "name: precious\n"
    assert rsoup(*words, "--overwrite").code == 0
    assert load_recipe(recipe).name == "r"


def test_models_of_another_machine_are_not_looked_up_if_asked(rsoup: Command, tmp_path: Path) -> None:
    data = write(tmp_path, "pairs.jsonl")
    words = ["--model", "owner/model", "--reward", "brief", "--reward", "good=owner/judge", "--yes", "--no-check"]
    assert rsoup("init", data, *words, "-o", tmp_path / "r.yaml").code == 0
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.model.base == "owner/model"
    assert recipe.rewards["good"].model == "owner/judge"


def test_a_person_is_asked_five_questions_and_again_after_a_wrong_answer(tmp_path: Path, tiny_model: Path) -> None:
    write(tmp_path, "texts.jsonl")
    answers = ["absent.jsonl", "texts.jsonl", str(tiny_model), "brief", "brief varied", "", "asked"]
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "rsoup", "init", "--no-check"]  # what is resolved is proved above
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=env) as child:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        shown = _read_all(ours)
        out = child.stdout.read().decode() if child.stdout else ""
    assert (child.returncode, out) == (0, "asked.yaml\n"), shown
    asked = [shown.count(f"{what} (") for what in ("data", "model", "rewards", "size", "file")]
    assert asked == [2, 1, 2, 1, 1]
    assert shown.count("error:") == 2
    assert load_recipe(tmp_path / "asked.yaml").training.steps == 6


def _read_all(handle: int) -> str:
    pieces = []
    while True:
        try:
            piece = os.read(handle, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_judge_of_ones_own_words_works_as_it_is_written(
    rsoup: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path, "texts.jsonl")
    called = rsoup("init", data.name, "--model", "smollm2-135m-instruct", "-r", "polite=judge", "-r", "brief", "--yes")
    assert called.code == 0, called.err
    recipe = load_recipe(tmp_path / "texts.yaml")
    judge = recipe.rewards["polite"].judge
    assert judge is not None
    assert (judge.rubric, judge.model, judge.base_url) == ("How polite is the answer?", "smollm2-135m-instruct", None)
    assert "# base_url: https://api.openai.com/v1" in (tmp_path / "texts.yaml").read_text()


def test_few_held_out_rows_are_told_as_what_they_are(rsoup: Command, tmp_path: Path, chat_model: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": post}) + "\n" for post in [*POSTS[:4], POSTS[0]]))
    words = ["init", data, "--model", chat_model, "-r", "brief", "-r", "varied", "--yes", "-o", tmp_path / "r.yaml"]
    assert "warning: 1 held-out row tells nothing but that all runs" in " ".join(rsoup(*words).err.split())
    data.write_text("".join(json.dumps({"prompt": "a haiku"}) + "\n" for _ in range(10)))
    said = " ".join(rsoup(*words, "--overwrite").err.split())
    assert "warning: 2 of 2 held-out rows ask what a training row asks" in said
