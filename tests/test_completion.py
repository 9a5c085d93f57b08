"""What the shell offers for a half-typed word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cli_tree import commands
from rsoup.cli import completion
from rsoup.mixing.checkpoints import RULES
from rsoup.mixing.methods import METHODS
from rsoup.recipe import EvaluationSection, TrainingSection
from rsoup.starting import SIZES

COMPLETING = """
import sys
from rsoup.cli import main
try:
    main()
except SystemExit:
    pass
print([name for name in ("torch", "transformers", "numpy") if name in sys.modules], file=sys.stderr)
"""


def offered(words: str, folder: Path, shell: str = "bash") -> subprocess.CompletedProcess[str]:
    """Ask as the script of a shell does, with the cursor at the end of the words."""
    typed = f"rsoup {words}"
    asked = {"_RSOUP_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    source = str(Path(__file__).parents[1])
    env = {**os.environ, **asked, "PYTHONPATH": source}
    command = [sys.executable, "-c", COMPLETING]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=folder)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_the_recipes_that_a_word_begins_and_no_model_library_is_loaded(shell: str, tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("name: quick\n")
    ended = offered("run quick", tmp_path, shell)
    assert ended.stderr.splitlines()[-1] == "[]"
    for name in ("quickstart", "quickstart-grpo", "quick.yaml"):
        assert name in ended.stdout
    assert "three-rewards" not in ended.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_calls_rsoup(shell: str, tmp_path: Path) -> None:
    env = {**os.environ, "_RSOUP_COMPLETE": f"source_{shell}", "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-m", "rsoup"], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert f"_RSOUP_COMPLETE=complete_{shell}" in ended.stdout
    assert "rsoup" in ended.stdout
    assert "python -m" not in ended.stdout


def test_rewards_are_those_of_the_registry_and_the_functions_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("def kind(completions): ...\ndef _own(x): ...\nasync def short(completions): ...\n")
    assert {name for name, _ in completion.complete_reward("fait")} == {"faithful", "faithful-bart"}
    found = completion.complete_reward(f"{tmp_path}/my.py:")
    assert [name for name, _ in found] == [f"{tmp_path}/my.py:kind", f"{tmp_path}/my.py:short"]
    assert [name for name, _ in completion.complete_reward(f"{tmp_path}/m")] == [f"{tmp_path}/my.py"]


def test_adapters_and_runs_are_those_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "runs/first/adapters/brief"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (tmp_path / "runs/first/recipe.yaml").write_text("")
    (tmp_path / ".hidden").mkdir()
    assert completion.complete_adapter("") == ["runs/first/adapters/brief", "runs/"]
    assert completion.complete_adapter("runs/first/adapters/x") == []
    assert completion.complete_run("runs/f") == ["runs/first", "runs/first/"]
    assert completion.complete_run(".h") == [".hidden/"]


def test_tasks_and_bases_are_those_that_come_with_rsoup() -> None:
    assert completion.complete_task("rev") == ["reviews", "review"]
    assert completion.complete_base("smol") == ["smollm2-135m-instruct"]


CLOSED = {
    ("mix", "--method"): [*METHODS, *(name for name in RULES if name not in METHODS)],
    ("eval", "--method"): EvaluationSection.model_fields["method"].annotation,
    ("eval", "--engine"): EvaluationSection.model_fields["engine"].annotation,
    ("eval", "--compare"): EvaluationSection.model_fields["compare"].annotation,
    ("run", "--algo"): TrainingSection.model_fields["algo"].annotation,
    ("train", "--algo"): TrainingSection.model_fields["algo"].annotation,
    ("morl", "--report-to"): TrainingSection.model_fields["report_to"].annotation,
    ("init", "--size"): list(SIZES),
    ("mix", "--dtype"): ["F32", "F16", "BF16"],
    ("serve", "--engine"): ["rsoup", "vllm"],
    ("serve", "--method"): ["factors", "cat"],
    ("chat", "--dtype"): ["auto", "float32", "bfloat16", "float16"],
}


def names_in(kind: object) -> list[str]:
    """Return the texts that a type allows, those of its parts among them."""
    parts = [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else get_args(kind)
    return [part for whole in parts for part in ([whole] if isinstance(whole, str) else names_in(whole))]


@pytest.mark.parametrize(("name", "option"), CLOSED)
def test_where_few_names_are_taken_they_are_offered(name: str, option: str) -> None:
    command = dict(commands())[name]
    own = next(one for one in command.params if option in one.opts)

    def offer(word: str) -> list[str]:
        return [item.value for item in own.shell_complete(command.context_class(command), word)]

    names = names_in(CLOSED[name, option])
    assert sorted(offer("")) == sorted(names)
    assert offer(names[0]) == [one for one in offer("") if one.startswith(names[0])]
