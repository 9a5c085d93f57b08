"""How vLLM is started for a run; that it then says what rsoup says is ``make vllm-check``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command import Command, assert_refused
from rsoup.serving.source import Source
from rsoup.serving.vllm_server import launch


def test_a_run_is_served_with_room_for_its_mixes_and_with_no_way_to_others(tiny_run: Path, tmp_path: Path) -> None:
    source = Source(str(tiny_run / "run"), method="cat", dtype="bfloat16")
    made = launch(source, host="127.0.0.1", port=81, api_key="secret", more=["--max-model-len", "64"], folder=tmp_path)
    words = list(made.command)
    assert words[words.index("--max-lora-rank") + 1] == "8"  # 6 in all: the smallest size that vLLM knows
    assert words[words.index("--middleware") + 1] == "rsoup.serving.vllm_resolver.Closed"
    assert words[words.index("--served-model-name") + 1] == "base"
    assert words[-4:] == ["--dtype", "bfloat16", "--max-model-len", "64"]
    assert "secret" not in words  # which other users of the machine can read
    assert made.environment["VLLM_API_KEY"] == "secret"
    assert made.environment["RSOUP_METHOD"] == "cat"
    assert Path(made.environment["RSOUP_RUN"]).is_absolute()
    assert made.steps == 10  # three adapters and the base: 286 mixes


def test_what_vllm_cannot_do_is_refused(rsoup: Command, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as where it is not installed
    run = tiny_run / "run"
    assert_refused(rsoup("serve", run, "--engine", "vllm"), "needs the package vllm", "pip install vllm")
    extrapolated = rsoup("serve", run, "--engine", "vllm", "--allow-extrapolation")
    assert_refused(
        extrapolated, "--allow-extrapolation says nothing to --engine vllm", "Leave --allow-extrapolation out"
    )
    assert_refused(
        rsoup("serve", run, "--vllm-args", "--x 1"), "--vllm-args says nothing to --engine rsoup", "the other engine"
    )
