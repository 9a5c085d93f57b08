"""What doctor finds on a machine: imports in a process of their own, nothing that tells who one is."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from command import Command
from rsoup import doctor
from rsoup.doctor.findings import Facts
from rsoup.doctor.machine import this_machine


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules that can be imported in a process of its own."""
    (tmp_path / "good_one.py").write_text("print('a greeting on stdout')\nthing = 1\n")
    (tmp_path / "raises.py").write_text(f"raise ImportError('cannot load {tmp_path}/lib.so')\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def test_each_import_that_fails_is_named_and_those_after_it_are_tried(modules: Path) -> None:
    begun: list[str] = []
    targets = ["good_one:thing", "raises", "dies", "good_one:absent", "leaves", "json"]
    failures, devices = doctor.probe(targets, begun.append)
    assert begun == targets
    assert devices == ()
    assert failures == {
        "raises": f"ImportError: cannot load {modules}/lib.so",
        "dies": "it ends Python (SIGILL)",
        "good_one:absent": "AttributeError: module 'good_one' has no attribute 'absent'",
        "leaves": "SystemExit: 3",
    }


def test_an_import_that_does_not_end_is_ended(modules: Path) -> None:
    assert modules.is_dir()
    failures, _ = doctor.probe(["hangs", "good_one"], patience=1.0)
    assert failures == {"hangs": "it takes longer than 1 s"}


def test_nothing_that_is_pasted_tells_who_one_is(tmp_path: Path) -> None:
    environment = {"HF_TOKEN": "hf_secret", "HF_HOME": "/home/zoe/models", "HF_HUB_OFFLINE": "1", "HOME": "/home/zoe"}
    facts = Facts(
        rsoup="1",
        machine=this_machine(tmp_path),
        packages={"torch": "2.13.0", "peft": "0.21"},
        failures={"peft": "ImportError: /home/zoe/.venv/lib/libx.so: no such file"},
        cached=("zoe/private-model",),
        settings=doctor.settings_of(environment),
    )
    text = doctor.pasted(facts)
    assert "zoe" not in text
    assert "hf_secret" not in text
    assert "HF_TOKEN=set" in text
    assert ".../libx.so: no such file" in text
    assert "torch 2.13.0" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open '/home/zoe/a b.so'", "cannot open '.../a b.so'"),
        ("at C:\\Users\\zoe\\x.dll", "at .../x.dll"),
        ("~/models/x is gone", ".../x is gone"),
        ("CUDA 12.6 and/or ROCm, 3/4", "CUDA 12.6 and/or ROCm, 3/4"),
    ],
)
def test_paths_lose_their_folders(text: str, shown: str) -> None:
    assert doctor.without_paths(text) == shown


def test_models_in_the_hubs_cache_are_named_once(tmp_path: Path) -> None:
    for folder in ("models--a--b/snapshots/1", "models--a--b/snapshots/2", "models--c/snapshots/1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "models--broken--download/snapshots").mkdir(parents=True)
    assert doctor.cached_models(tmp_path) == ["a/b", "c"]
    assert doctor.hub_cache({"HF_HUB_CACHE": "/x"}) == Path("/x")
    assert doctor.hub_cache({"HF_HOME": "/x"}) == Path("/x/hub")
    assert doctor.hub_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/huggingface/hub")


def test_the_command_ends_with_a_block_to_paste_and_imports_nothing_itself(rsoup: Command) -> None:
    called = rsoup("doctor", "--quick")
    assert called.code == 0
    after = called.lines[called.lines.index("to paste into an issue:") + 2 :]
    assert all(line.startswith("    ") for line in after)
    assert [line for line in after if "torch" in line]
    assert all(
        any(line.startswith(f"+ {name} ") or line.startswith(f"- {name} ") for line in called.lines)
        for name in ("train", "serve")
    )


def test_json_says_the_same(rsoup: Command) -> None:
    content = json.loads(rsoup("doctor", "--quick", "--json").out)
    assert content["usable"] is True
    assert content["devices"] is None
    assert content["extras"]["train"] == {"installed": True, "lacks": []}
    assert content["recipes"]["quickstart"] is None or "memory" in content["recipes"]["quickstart"]


def test_a_package_that_cannot_be_loaded_is_exit_code_1(rsoup: Command, modules: Path) -> None:
    """torch stands first on the path as a file that lacks a library, and the other large packages as empty files."""
    for name in ("accelerate", "datasets", "matplotlib", "pyarrow", "ray", "reasoning_gym", "scipy", "moocore"):
        (modules / f"{name}.py").write_text("")
    for name, attribute in (
        ("lm_eval", "simple_evaluate"),
        ("peft", "LoraConfig"),
        ("transformers", "AutoModelForCausalLM"),
        ("trl", "GRPOTrainer"),
    ):
        (modules / f"{name}.py").write_text(f"{attribute} = 1\n")
    (modules / "torch.py").write_text(
        "raise OSError('/home/zoe/lib/libcudart.so.12: cannot open shared object file')\n"
    )
    called = rsoup("doctor")
    assert called.code == 1
    (broken,) = [line for line in called.lines if line.startswith("broken")]
    assert "torch" in broken
    assert "/home/zoe/lib/libcudart.so.12: cannot open" in broken
    assert called.lines[-1].startswith("    broken: torch")
    assert "zoe" not in called.lines[-1]
