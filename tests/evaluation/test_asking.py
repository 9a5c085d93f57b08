"""What may be asked of a sweep: samples, random points, other ingredients, refinement; what it refuses or reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rsoup import mixing
from rsoup.errors import DataError, MissingPackageError, RewardError
from rsoup.evaluation.applying import Change
from rsoup.evaluation.generation import Resident, Subject
from rsoup.models.load import load_language_model, load_tokenizer
from rsoup.report import Options, make_report
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import load_examples
from tiny import POSTS

from .sweeping import Recording, completions, generate, recipe_of, sweep


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_batch_size_leaves_the_same_completions_and_scores(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, temperature: float
) -> None:
    found = []
    for size in (1, 32, "auto"):
        settings = {"batch_size": size, "temperature": temperature, "prompts": 12}
        results, samples = sweep(content, experts[:2], tmp_path / f"eval-{size}", **settings)
        found.append((completions(samples), [point.scores for point in results.points]))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("settings", [{}, {"compare": ["mod"]}, {"temperature": 1.0, "samples": 2}])
def test_a_long_beginning_that_prompts_share_is_read_once_and_changes_nothing(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """A sweep over one prompt shares nothing with others: each prompt has to come out as it does alone."""
    content["task"]["template"] = "good great bad awful love hate fine cheap : {post} :"
    _, together = sweep(content, experts[:2], tmp_path / "together", **settings)
    lines = Path(content["task"]["data"]).read_text().splitlines(keepends=True)
    for row in range(4):
        own = tmp_path / f"{row}.jsonl"
        own.write_text(lines[row])
        alone = {**content, "task": {**content["task"], "eval_data": str(own)}}
        _, samples = sweep(alone, experts[:2], tmp_path / f"alone-{row}", **settings)
        for name, point in together.points.items():
            assert samples.points[name].completions == point.completions[row : row + 1], name


def test_several_samples_of_each_prompt(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    """The mean is over all of them; its error counts a prompt once, since its samples are not independent."""
    out = tmp_path / "eval"
    _, single = sweep(content, experts[:2], out, temperature=1.0)
    more, again = Recording(), Recording()
    results, samples = sweep(content, experts[:2], out, more, temperature=1.0, samples=3)
    assert len(more.completed) == 4 * 4
    table = pq.read_table(out / "samples.parquet").to_pylist()
    assert len(table) == len(results.points) * 4 * 3
    assert results.generation.samples_per_prompt == 3
    for point in results.points:
        rows = [row for row in table if row["point"] == point.id]
        assert [row["sample"] for row in rows] == [0, 1, 2] * 4
        assert tuple(row["completion"] for row in rows[::3]) == single.points[point.id].completions
        means = np.array([row["score:brief"] for row in rows]).reshape(4, 3).mean(1)
        assert point.scores["brief"].mean == pytest.approx(means.mean())
        assert point.scores["brief"].stderr == pytest.approx(means.std(ddof=1) / 2)
        assert point.scores["brief"].n == 4
        assert samples.points[point.id].scores["brief"].tolist() == pytest.approx(means.tolist())
    sweep(content, experts[:2], out, again, temperature=1.0, samples=2)
    assert again.completed == []


def test_five_adapters_on_random_points(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, samples = sweep(content, experts, tmp_path / "eval", random=3)
    soups = [point for point in results.points if point.kind == "soup"]
    assert len(soups) == 3
    assert len(results.points) == 1 + 5 + 3
    folder = mixing.write(mixing.mix(experts, list(soups[0].weights.values())), tmp_path / "soup")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert completions(samples)[soups[0].id] == generate(model, tiny_model)


def test_a_line_leads_back_to_the_base(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    content["rewards"] = ["brief", "positive"]
    results, samples = sweep(content, experts[:1], tmp_path / "eval", lambdas=3, with_base=True)
    assert [(point.id, point.lam) for point in results.points] == [("base", None), ("a", 0), ("soup-0.50-0.50", 0.5)]
    folder = mixing.write(mixing.mix(experts[:1], [0.5], base_weight=0.5), tmp_path / "soup")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert completions(samples)["soup-0.50-0.50"] == generate(model, tiny_model)
    assert completions(samples)["base"] == generate(AutoModelForCausalLM.from_pretrained(tiny_model), tiny_model)
    options = Options(prefer=[{"brief": 1.0, "positive": 0.0}])
    report = make_report([tmp_path / "eval" / "results.json"], tmp_path / "report", options)
    assert all("--base-weight 0.5" in own.command for own in report.choices if own.nearest == "soup-0.50-0.50")


def test_a_line_that_goes_on_beyond_its_ends(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, samples = sweep(content, experts[:2], tmp_path / "eval", lambdas=3, extrapolate=0.5)
    assert [point.lam for point in results.points] == [None, -0.5, 0.0, 0.5, 1.0, 1.5]
    soup = mixing.mix(experts[:2], [1.5, -0.5], allow_extrapolation=True)
    folder = mixing.write(soup, tmp_path / "soup")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert completions(samples)["soup-1.50--0.50"] == generate(model, tiny_model)


def test_refining_measures_more_mixes_and_the_same_ones_again(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    content["rewards"] = ["brief", "positive"]
    progress, again, further = Recording(), Recording(), Recording()
    results, _ = sweep(content, experts[:2], tmp_path / "eval", progress, lambdas=3, refine=3)
    soups = [point for point in results.points if point.kind == "soup"]
    assert len(soups) == 1 + 3
    places = [point.lam for point in results.points if point.lam is not None]
    assert places == sorted(set(places))
    assert all(sum(point.weights.values()) == pytest.approx(1) for point in soups)
    sweep(content, experts[:2], tmp_path / "eval", again, lambdas=3, refine=3)
    assert again.completed == []
    sweep(content, experts[:2], tmp_path / "eval", further, lambdas=3, refine=4)
    assert len(set(further.completed)) == 1


def test_refining_on_a_simplex(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    content["rewards"] = ["brief", "positive"]
    results, _ = sweep(content, experts[:3], tmp_path / "eval", lambdas=2, refine=2)
    assert len(results.points) == 1 + 3 + 2


def test_a_baseline_is_mixed_on_request(tiny_run: Path, content: dict[str, Any], tmp_path: Path) -> None:
    folders = sorted((tiny_run / "run" / "adapters").iterdir())
    sources = [folder for folder in folders if folder.name in ("positive", "morl-0.50-0.50")]
    results, _ = sweep(content, sources, tmp_path / "eval", mix_morl=True, lambdas=3)
    assert [point.kind for point in results.points] == ["base", "morl", "soup", "expert"]


def test_prompts_beyond_the_context_are_left_out_and_told(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    """The tiny model reads 128 tokens; two of three rows are one token short of leaving room, or just leave it."""
    rows = [" ".join(["good"] * count) for count in (116, 117, 3)]  # and 4 of the template, and 8 new ones
    posts = tmp_path / "long.jsonl"
    posts.write_text("".join(json.dumps({"id": str(n), "post": row}) + "\n" for n, row in enumerate(rows)))
    content["task"] |= {"eval_data": str(posts), "template": "summary : : {post} :"}
    progress = Recording()
    results, samples = sweep(content, experts[:1], tmp_path / "eval", progress)
    assert samples.prompt_ids == ("0", "2")
    assert results.prompts.left_out == 1
    told = "1 held-out rows are left out: no room for 8 new tokens in the model's context of 128 (1)."
    assert told in progress.said
    content["task"]["max_prompt_tokens"] = 50
    results, _ = sweep(content, experts[:1], tmp_path / "eval", progress)
    assert results.prompts.left_out == 2
    assert any("prompt longer than 50 tokens" in text for text in progress.said)
    with pytest.raises(DataError, match="all 1 prompts leave no room for 126 new tokens"):
        sweep(content, experts[:1], tmp_path / "eval", max_new_tokens=126)


def test_a_reward_that_fails_on_one_completion_names_it_and_loses_nothing(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    content["rewards"] = {"own": {"function": f"{own}:own"}}
    code = "def own(prompts, completions):\n    if {bad!r} in prompts:\n        raise KeyError('odd')\n"
    own.write_text(code.format(bad=POSTS[2]) + "    return [1.0] * len(prompts)\n")
    with pytest.raises(RewardError, match=r"raised KeyError: 'odd', for the completion '.*' of the prompt") as caught:
        sweep(content, experts[:1], tmp_path / "eval")
    assert POSTS[2][:70] in caught.value.message
    scored = [json.loads(path.read_text())["rows"] for path in (tmp_path / "eval/points").glob("*/scores-*.json")]
    assert [len(rows) for rows in scored] == [3]
    assert not (tmp_path / "eval" / "results.json").exists()
    own.write_text("def own(prompts, completions):\n    return [1.0] * len(prompts)\n")
    more = Recording()
    sweep(content, experts[:1], tmp_path / "eval", more)
    assert set(more.completed) == {"a"}


def test_memory_that_runs_out_halves_the_batches_and_changes_nothing(content: dict[str, Any], tiny_model: Path) -> None:
    """The model refuses batches of more than two rows, as an accelerator that is full would."""
    recipe = recipe_of(content, batch_size=4)
    model = load_language_model(str(tiny_model), revision=None, dtype="float32")
    task = resolve_task(recipe.task)
    examples = load_examples(task, load_tokenizer(str(tiny_model), None), "test").rows[:7]
    said: list[str] = []

    def complete() -> dict[str, Any]:
        resident = Resident(model, recipe.evaluation, 0, None, examples, said.append)
        found = resident.complete(Subject(model, Change()), examples, lambda: None)
        return {name: [(own.text, own.tokens) for own in rows] for name, rows in found.items()}

    expected = complete()
    assert said == []

    def full(_module: Any, _inputs: Any, options: dict[str, Any]) -> None:
        if len(options["input_ids"]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.model.get_decoder().register_forward_pre_hook(full, with_kwargs=True)
    assert complete() == expected
    handle.remove()
    assert said == ["A batch of 4 is too much for the memory; going on with 2."]


def test_vllm_that_is_missing_is_told_before_anything_is_done(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(MissingPackageError, match="vllm needs the package vllm") as caught:
        sweep(content, experts[:1], tmp_path / "eval", engine="vllm")
    assert "pip install vllm" in caught.value.hint
    assert not (tmp_path / "eval").exists()
