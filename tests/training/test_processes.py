"""Trainings as processes: killed and continued, two that train together, two that share a folder."""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from forking import command, ranks
from rsoup.files import sha256_file
from tiny import build_adapter, recipe_content, write_recipe

WEIGHTS = "adapters/brief/adapter_model.safetensors"
METRICS = "adapters/brief/metrics.jsonl"
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
CONFIGURATIONS = Path(__file__).parents[2] / "recipes" / "accelerate"


def write(folder: Path, model: Path, **training: Any) -> Path:
    folder.mkdir()
    content = recipe_content(folder, model)
    content["training"].update(training)
    content["rewards"], content["morl"] = ["brief"], []
    return write_recipe(folder / "r.yaml", content)


def train(recipe: Path, **environment: str) -> str:
    """Train in a process of its own; return what it said."""
    with command("train", recipe, "--reward", "brief", environment=ON_CPU | environment) as process:
        assert process.ended() == 0, process.err
        return process.err


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
    train(undisturbed)
    done = 0
    kept = tmp_path / "killed/run/checkpoints/brief"
    for number, more in ((signal.SIGKILL, 11), (signal.SIGTERM, 17), (signal.SIGINT, 5)):
        with command("train", killed, "--reward", "brief", environment=ON_CPU) as process:
            process.wait_for(lambda _, count=done + more: len(lines(kept / "metrics.jsonl")) >= count)
            process.send_signal(number)
            assert process.ended() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        steps = [int(path.stem.removeprefix("step-")) for path in sorted(kept.glob("step-*.safetensors"))]
        assert len(steps) <= 2
        done = len(lines(kept / "metrics.jsonl"))
        assert steps[-1] >= (done - 7 if number == signal.SIGKILL else done - 1)
        assert not (tmp_path / "killed/run/adapters/brief").exists()
    train(killed)
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
    train(alone)
    words = ("train", together, "--reward", "brief")
    with ExitStack() as stack:
        leader, other = (stack.enter_context(own) for own in ranks(2, *words, environment=ON_CPU))
        assert (leader.ended(), other.ended()) == (0, 0), (leader.err, other.err)
        assert leader.out.split() == [str(tmp_path / "together/run/adapters/brief")]  # one process speaks for both
        assert (other.out, other.err) == ("", "")
    note = json.loads((tmp_path / "together/run/adapters/brief/rsoup.json").read_text())
    assert note["processes"] == 2
    one, twins = lines(tmp_path / "alone/run" / METRICS), lines(tmp_path / "together/run" / METRICS)
    for line, twin in zip(one, twins, strict=True):
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
    train(recipe)
    recipe.write_text(f"{recipe.read_text()}seed: 1\n")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(own) for own in ranks(2, "train", recipe, "--reward", "brief", environment=ON_CPU)
        ]
        assert all(process.ended() for process in processes)
        for process in processes:
            assert "RuntimeError" not in process.err
        assert "made with other settings, data or base model" in processes[0].err


def test_two_workers_in_one_folder_train_each_adapter_once(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    recipe = write_recipe(tmp_path / "r.yaml", content)
    with command("run", recipe) as one, command("run", recipe) as other:
        assert (one.ended(), other.ended()) == (0, 0), (one.err, other.err)
        said = (one.err, other.err)
    run = tmp_path / "run"
    for name in ("positive", "brief", "morl-0.50-0.50"):
        steps = [line["step"] for line in lines(run / "adapters" / name / "metrics.jsonl")]
        assert steps == [1, 2, 3]
        bars = [re.search(rf"^{name} .*3/3", err, re.MULTILINE) is not None for err in said]
        assert sorted(bars) == [False, True], said
    assert not (run / "checkpoints").exists() or not any((run / "checkpoints").iterdir())


def test_a_stopped_worker_is_waited_for_and_then_ends_what_it_was_at(tmp_path: Path, tiny_model: Path) -> None:
    """Stopped at ``positive``, it keeps its lock: the other makes all else, waits, and neither makes anything twice."""
    (tmp_path / "alone").mkdir()
    content = recipe_content(tmp_path / "alone", tiny_model)
    content["training"] |= {"steps": 9, "checkpoint_every": 2}
    content["evaluation"] |= {"lambdas": 2, "prompts": 2}
    content["morl"] = []
    alone = write_recipe(tmp_path / "alone.yaml", content)
    recipe = write_recipe(tmp_path / "r.yaml", {**content, "output": str(tmp_path / "run")})
    begun = tmp_path / "run/checkpoints/positive"
    with command("run", recipe) as one, command("run", alone) as undisturbed:
        one.wait_for(lambda _: len(lines(begun / "metrics.jsonl")) >= 2)
        one.send_signal(signal.SIGSTOP)
        kept = (begun / "metrics.jsonl").read_bytes()
        with command("run", recipe) as other:
            other.wait_for(lambda own: "Another worker is making positive; waiting for it." in own.err)
            assert (tmp_path / "run/adapters/brief").is_dir()
            assert (begun / "metrics.jsonl").read_bytes() == kept
            one.send_signal(signal.SIGCONT)
            assert (one.ended(), other.ended(), undisturbed.ended()) == (0, 0, 0), (one.err, other.err)
    for name in ("positive", "brief"):
        path = f"run/adapters/{name}"
        assert [line["step"] for line in lines(tmp_path / path / "metrics.jsonl")] == [*range(1, 10)]
        assert sha256_file(tmp_path / path / "adapter_model.safetensors") == sha256_file(
            tmp_path / "alone" / path / "adapter_model.safetensors"
        )
    shared, twin = (folder / "run/eval/results.json" for folder in (tmp_path, tmp_path / "alone"))
    assert shared.read_bytes() == twin.read_bytes()


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
    train(recipe, ACCELERATE_MIXED_PRECISION="bf16")
    kls = [line["kl"] for line in lines(tmp_path / "given/run" / METRICS)]
    assert abs(kls[0]) < 0.05
    assert min(abs(kl) for kl in kls[1:]) > 0
