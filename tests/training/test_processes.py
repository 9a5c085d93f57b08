"""Trainings as processes: killed and continued, two that train together, two that share a folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from rsoup.files import sha256_file
from tiny import build_adapter, recipe_content, write_recipe

WEIGHTS = "adapters/brief/adapter_model.safetensors"
METRICS = "adapters/brief/metrics.jsonl"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
LAUNCH = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
CONFIGURATIONS = Path(__file__).parents[2] / "recipes" / "accelerate"


def write(folder: Path, model: Path, **training: Any) -> Path:
    folder.mkdir()
    content = recipe_content(folder, model)
    content["training"].update(training)
    content["rewards"], content["morl"] = ["brief"], []
    return write_recipe(folder / "r.yaml", content)


def begin(recipe: Path, *launcher: str) -> subprocess.Popen[str]:
    words = [sys.executable, *launcher, "-m", "rsoup", "train", str(recipe), "--reward", "brief"]
    return subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(recipe: Path, *launcher: str) -> tuple[str, str]:
    with begin(recipe, *launcher) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the metrics written so far, without the times."""
    whole = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.is_file() else []
    )
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in whole]


def test_a_training_killed_again_and_again_gives_what_an_undisturbed_one_gives(
    tmp_path: Path, tiny_model: Path
) -> None:
    undisturbed, killed = (
        write(tmp_path / name, tiny_model, steps=150, checkpoint_every=7) for name in ("undisturbed", "killed")
    )
    finish(undisturbed)
    done = 0
    kept = tmp_path / "killed/run/checkpoints/brief"
    for number, more in ((signal.SIGKILL, 11), (signal.SIGTERM, 17), (signal.SIGINT, 5)):
        with begin(killed) as process:
            while len(lines(kept / "metrics.jsonl")) < done + more and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(number)
            process.wait(timeout=60)
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        steps = [int(path.stem.removeprefix("step-")) for path in sorted(kept.glob("step-*.safetensors"))]
        assert len(steps) <= 2
        done = len(lines(kept / "metrics.jsonl"))
        assert steps[-1] >= (done - 7 if number == signal.SIGKILL else done - 1)
        assert not (tmp_path / "killed/run/adapters/brief").exists()
    finish(killed)
    one, other = tmp_path / "undisturbed/run", tmp_path / "killed/run"
    assert sha256_file(other / WEIGHTS) == sha256_file(one / WEIGHTS)
    assert lines(other / METRICS) == lines(one / METRICS)
    assert [line["step"] for line in lines(one / METRICS)] == list(range(1, 151))


def test_two_processes_train_what_one_trains(tmp_path: Path, tiny_model: Path) -> None:
    settings = {
        "steps": 2,
        "prompts_per_step": 4,
        "score_scaling": "running",
        "ppo": {"epochs": 2, "kl_coef": 0.05, "mini_batches": 2},
    }
    alone, together = (write(tmp_path / name, tiny_model, **settings) for name in ("alone", "together"))
    finish(alone)
    out, _ = finish(together, *LAUNCH)
    assert out.split() == [str(tmp_path / "together/run/adapters/brief")]  # one process speaks for both
    note = json.loads((tmp_path / "together/run/adapters/brief/rsoup.json").read_text())
    assert note["processes"] == 2
    one, other = lines(tmp_path / "alone/run" / METRICS), lines(tmp_path / "together/run" / METRICS)
    for line, twin in zip(one, other, strict=True):
        assert {key: line[key] for key in ("step", "prompt", "completion")} == {
            key: twin[key] for key in ("step", "prompt", "completion")
        }
        for key in ("kl", "entropy", "completion_tokens", "reward", "policy", "value", "clipped", "grad_norm"):
            assert twin[key] == pytest.approx(line[key], rel=1e-4, abs=1e-6), key
        assert twin["scores"] == pytest.approx(line["scores"])
    weights, twins = load_file(tmp_path / "alone/run" / WEIGHTS), load_file(tmp_path / "together/run" / WEIGHTS)
    for name, array in weights.items():
        np.testing.assert_allclose(twins[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_the_leader_refuses_no_one_waits_for(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path / "r", tiny_model, steps=1)
    finish(recipe)
    recipe.write_text(f"{recipe.read_text()}seed: 1\n")
    with begin(recipe, *LAUNCH) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "made with other settings, data or base model" in err
    assert "RuntimeError" not in err


def test_two_workers_in_one_folder_train_each_adapter_once(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    recipe = write_recipe(tmp_path / "r.yaml", content)
    words = [sys.executable, "-m", "rsoup", "run", str(recipe)]
    workers = [
        subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    run = tmp_path / "run"
    for name in ("positive", "brief", "morl-0.50-0.50"):
        steps = [line["step"] for line in lines(run / "adapters" / name / "metrics.jsonl")]
        assert steps == [1, 2, 3]
        bars = [re.search(rf"^{name} .*3/3", err, re.MULTILINE) is not None for _, err in said]
        assert sorted(bars) == [False, True], said
    assert not (run / "checkpoints").exists() or not any((run / "checkpoints").iterdir())


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_configurations(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes in (1, 8, 16)


def test_in_mixed_precision_the_distance_from_a_given_start_is_measured(tmp_path: Path, tiny_model: Path) -> None:
    """The start's factors are put in place within a step; the casts of the present ones must not stand in for them."""
    recipe = write(tmp_path / "given", tiny_model, steps=3)
    content = yaml.safe_load(recipe.read_text())
    del content["model"]["lora"]
    content["model"]["start"] = str(build_adapter(tmp_path / "start", tiny_model, seed=1))
    write_recipe(recipe, content)
    words = [sys.executable, "-m", "rsoup", "train", str(recipe), "--reward", "brief"]
    subprocess.run(words, env={**ENVIRONMENT, "ACCELERATE_MIXED_PRECISION": "bf16"}, check=True, capture_output=True)
    kls = [line["kl"] for line in lines(tmp_path / "given/run" / METRICS)]
    assert abs(kls[0]) < 0.05
    assert min(abs(kl) for kl in kls[1:]) > 0
