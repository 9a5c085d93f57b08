"""Typical mistakes are refused before torch is imported, in the words that resolving would find for them."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import RsoupError
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.there import check_recipe
from tiny import recipe_content, write_recipe

ROOT = Path(__file__).parents[1]
ABSENT: dict[str, dict[str, Any]] = {
    "absent.jsonl: there is no such data file": {"task.data": "absent.jsonl"},
    "rows.txt: a .txt file is not data": {"task.eval_data": "rows.txt"},
    "absent/folder/x: there is no such model folder": {"model.base": "absent/folder/x"},
    "absent.py:f: there is no file absent.py": {"rewards.brief.function": "absent.py:f"},
    "The reward brief: absent/folder/y: there is no such": {"rewards.brief.model": "absent/folder/y"},
    "all-minilm-l6-v2: encodes text, and generates none": {"model.base": "all-minilm-l6-v2"},
    "The reward brief: its judge gpt-5-mini: there is no such model folder": {
        "rewards.brief.judge": {"rubric": "Is it kind?", "model": "gpt-5-mini"}
    },
}
LINES = {
    "run r.yaml --tiny --set task.name=xx": "there is no task 'xx'",
    "run r.yaml --set model.start=absent": "absent: there is no such folder",
    "train r.yaml -r brief --set task.data=absent.jsonl": "absent.jsonl: there is no such data file",
    "morl r.yaml --set model.base=absent/folder/x": "absent/folder/x: there is no such model folder",
    "eval r.yaml": "holds no trained adapter",
    "eval r.yaml --adapters absent": "absent: there is no such folder",
    "eval r.yaml --models absent/a/b absent/c/d": "absent/a/b: there is no such folder",
    "serve --port {taken}": "cannot be bound",
    "serve --port 0": "There is nothing to serve",
    "serve --port 0 absent": "is neither the folder of a run nor a recipe",
    "serve --port 0 r.yaml": "holds no trained adapter",
    "serve --port 0 --model {model} --adapters absent": "absent: there is no such folder",
    "serve --port 0 --api-key-env NOWHERE r.yaml": "the variable NOWHERE is empty",
    "chat absent": "is neither the folder of a run nor a recipe",
}
EACH = """
import json, sys
from rsoup.cli import main
for line in json.loads(sys.argv[1]):
    print(json.dumps(line), file=sys.stderr)
    sys.argv = ["rsoup", *line]
    try:
        main()
    except SystemExit as end:
        print(end.code, "torch" in sys.modules)
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of brief and varied in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.txt").write_text("a row\n")
    content = recipe_content(tmp_path, tiny_model)
    content["model"] = {"base": str(tiny_model)}
    content |= {"rewards": {"brief": None, "varied": None}, "morl": [{"brief": 1, "varied": 1}]}
    return write_recipe(tmp_path / "r.yaml", content)


@pytest.mark.parametrize("message", ABSENT)
def test_a_quick_look_says_what_resolving_says(message: str, recipe: Path) -> None:
    own = load_recipe(recipe, [f"{key}={value}" for key, value in ABSENT[message].items()])
    found = []
    for looking in (check_recipe, lambda own: resolve(own).check()):
        with pytest.raises(RsoupError) as caught:
            looking(own)
        found.append(str(caught.value))
    assert found[0] == found[1]
    assert message in found[0]


@pytest.mark.usefixtures("recipe")
def test_mistakes_are_refused_before_torch_is_there(tiny_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        filled = [line.format(taken=taken.getsockname()[1], model=tiny_model) for line in LINES]
        words = json.dumps([shlex.split(line) for line in filled])
        done = subprocess.run(
            [sys.executable, "-c", EACH, words],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
            check=True,
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.stdout.splitlines() == ["1 False"] * len(LINES), done.stderr
    for message, error in zip(LINES.values(), errors, strict=True):
        assert message in error
