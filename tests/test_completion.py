"""What the shell offers for a half-typed word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsoup.cli import completion

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
