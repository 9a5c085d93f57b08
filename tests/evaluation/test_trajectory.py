"""Checkpoints along a training are points of their own, whoever wrote them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rsoup import experiment
from rsoup.errors import AdapterError
from rsoup.evaluation.trajectory import read_trajectory
from rsoup.progress import Silent
from rsoup.recipe_file import parse_recipe
from rsoup.report import Options, make_report
from rsoup.resolve import resolve
from tiny import build_adapter, recipe_content

from .sweeping import completions, generate, sweep


@pytest.fixture
def training(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder as trainers based on PEFT leave it."""
    folder = tmp_path / "grpo"
    for seed, step in enumerate((5, 10, 100)):
        build_adapter(folder / f"checkpoint-{step}", tiny_model, seed)
    (folder / "runs").mkdir()
    return folder


def test_checkpoints_are_evaluated_along_their_steps(
    content: dict[str, Any], experts: list[Path], training: Path, tiny_model: Path, tmp_path: Path
) -> None:
    content["rewards"] = ["brief", "positive"]
    results, samples = sweep(content, experts[:2], tmp_path / "eval", trajectory=training)
    points = [point for point in results.points if point.kind == "checkpoint"]
    assert [point.id for point in points] == ["grpo@5", "grpo@10", "grpo@100"]
    assert [point.extras["step"] for point in points] == [5, 10, 100]
    assert {results.adapters[point.id].kind for point in points} == {"checkpoint"}
    for point, step in zip(points, (5, 10, 100), strict=True):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        model = PeftModel.from_pretrained(base, training / f"checkpoint-{step}")
        assert completions(samples)[point.id] == generate(model, tiny_model)
    report = make_report([tmp_path / "eval" / "results.json"], tmp_path / "report", Options())
    assert len(report.hypervolume["checkpoint"].points) == 3
    assert report.hypervolume["soup"].points == ["a", "soup-0.50-0.50", "b"]


class _Stopping(Silent):
    """Interrupts a training after two steps."""

    def __init__(self) -> None:
        self.steps = 0

    def advance(self, note: str = "") -> None:
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt


def test_a_training_on_its_way_can_be_looked_at(tmp_path: Path, tiny_model: Path, content: dict[str, Any]) -> None:
    recipe = parse_recipe(recipe_content(tmp_path / "own", tiny_model), "tiny")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(resolve(recipe), _Stopping())
    checkpoints = recipe.folder / "checkpoints" / "positive"
    found = read_trajectory(checkpoints)
    assert [own.adapter.name for own in found] == [f"positive@{own.step}" for own in found]
    assert len(found) >= 1
    for own in found:
        tensors = load_file(checkpoints / f"step-{own.step:06d}.safetensors")
        for name, array in own.adapter.tensors().items():
            assert (tensors[f"factor/{name}"].numpy() == array).all()
    results, _ = sweep(content, [], tmp_path / "eval", trajectory=checkpoints)
    assert [point.kind for point in results.points] == ["base"] + ["checkpoint"] * len(found)
    shutil.rmtree(recipe.folder / "adapters" / "init")
    with pytest.raises(AdapterError, match="has no configuration"):
        read_trajectory(checkpoints)


@pytest.mark.parametrize(("make", "message"), [(False, "no such folder"), (True, "holds no checkpoint")])
def test_a_folder_without_checkpoints_is_refused(tmp_path: Path, make: bool, message: str) -> None:
    if make:
        (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match=message):
        read_trajectory(tmp_path / "empty")
