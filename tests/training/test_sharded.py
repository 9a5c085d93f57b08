"""A base whose layers are split over two processes trains and measures what a whole one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rsoup import experiment
from rsoup.progress import Silent
from rsoup.training.finished import is_trained
from tiny import build_tiny_model

from .sharded_work import of_ppo

LAUNCH = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
WEIGHTS, METRICS = "adapters/brief/adapter_model.safetensors", "adapters/brief/metrics.jsonl"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes did with a split base, and one with a whole one under ``alone``."""
    folder = tmp_path_factory.mktemp("sharded")
    model = build_tiny_model(folder / "model", seed=0, num_hidden_layers=3)
    work = Path(__file__).with_name("sharded_work.py")
    words = [sys.executable, *LAUNCH, str(work), str(folder), str(model)]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{work.parents[2]}:{work.parents[1]}"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        experiment.run(of_ppo(folder / "alone", model, "auto"), Silent())
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def assert_same_training(one: Path, other: Path) -> None:
    for line, twin in zip(lines(one), lines(other), strict=True):
        for key in {*line} - {"seconds", "scores", "logged", "extra"}:
            same = line[key] if not isinstance(line[key], float) else pytest.approx(line[key], rel=1e-4, abs=1e-5)
            assert twin[key] == same, key
        assert twin["scores"] == pytest.approx(line["scores"])
    weights, twins = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    for name, array in weights.items():
        np.testing.assert_allclose(twins[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    start = load_file(one / "adapters/init/adapter_model.safetensors")
    assert any(np.abs(array - start[name]).max() > 1e-3 for name, array in weights.items())


def test_ppo_trains_what_it_trains_on_a_whole_base(done: Path) -> None:
    assert_same_training(done / "alone", done / "ppo")
    start, twin = (done / run / "adapters/init/adapter_model.safetensors" for run in ("alone", "ppo"))
    assert start.read_bytes() == twin.read_bytes()


def test_what_a_split_base_has_trained_is_done_for_a_whole_one(done: Path) -> None:
    assert is_trained(of_ppo(done / "ppo", done / "model", "auto"), "brief", {"brief": 1.0})


@pytest.mark.parametrize("algo", ["grpo", "rloo"])
def test_trl_trains_what_it_trains_on_whole_bases(done: Path, algo: str) -> None:
    assert_same_training(done / f"{algo}-auto", done / f"{algo}-sharded")


def test_an_evaluation_says_of_a_split_base_what_it_says_of_a_whole_one(done: Path) -> None:
    one, other = (json.loads((done / run / "eval/results.json").read_text()) for run in ("alone", "ppo"))
    assert [point["id"] for point in other["points"]] == [point["id"] for point in one["points"]]
    assert {point["kind"] for point in one["points"]} == {"base", "expert", "soup"}
    for point, twin in zip(one["points"], other["points"], strict=True):
        assert twin["scores"]["brief"]["mean"] == pytest.approx(point["scores"]["brief"]["mean"])
        for key in ("kl", "base_perplexity", "completion_tokens"):
            if key in point["extras"]:
                assert twin["extras"][key] == pytest.approx(point["extras"][key], rel=1e-3, abs=1e-5)
        for label, score in point.get("benchmarks", {}).items():
            assert twin["benchmarks"][label]["mean"] == pytest.approx(score["mean"]), label


def test_each_process_holds_half_of_the_layers_and_all_of_the_rest(done: Path) -> None:
    for rank in (0, 1):
        memory = json.loads((done / f"memory-{rank}.json").read_text())
        assert memory["layers sharded"] == memory["layers auto"] / 2
        assert memory["auto"] - memory["sharded"] == memory["layers auto"] / 2
