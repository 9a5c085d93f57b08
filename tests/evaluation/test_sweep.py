"""The sweep gives what PEFT and transformers give for each mixed adapter, in any batch, and does nothing twice."""

from __future__ import annotations

import json
import shutil
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rsoup import mixing
from rsoup.errors import AdapterError, RewardError
from rsoup.evaluation.results import RESULTS, read_results
from rsoup.evaluation.sweep import evaluate
from rsoup.files import sha256_file
from rsoup.models import products
from rsoup.progress import Silent
from rsoup.recipe_file import parse_recipe
from rsoup.report import Options, make_report
from rsoup.resolve import resolve
from tiny import POSTS, build_adapter, build_tiny_model

from .sweeping import Recording, completions, files, generate, recipe_of, sweep


@pytest.mark.parametrize("method", ["factors", "cat"])
def test_every_point_gives_what_peft_generates_with_the_mixed_adapter(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path, method: str
) -> None:
    results, samples = sweep(content, experts[:2], tmp_path / "eval", method=method, lambdas=5)
    found = completions(samples)
    assert found["base"] == generate(AutoModelForCausalLM.from_pretrained(tiny_model), tiny_model)
    for point in results.points[1:]:
        assert point.lam is not None
        soup = mixing.mix(experts[:2], [1 - point.lam, point.lam], method=method)
        folder = mixing.write(soup, tmp_path / f"soup-{point.lam}")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
        assert found[point.id] == generate(model, tiny_model), point.id
    assert len(set(found.values())) > 3


def test_the_ends_of_the_line_are_the_experts(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    _, samples = sweep(content, experts[:2], tmp_path / "eval")
    for folder in experts[:2]:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
        assert completions(samples)[folder.name] == generate(model, tiny_model)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batches_do_not_matter(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, temperature: float
) -> None:
    sizes = (1, 2, 4)
    found = [
        sweep(content, experts[:2], tmp_path / f"eval-{size}", batch_size=size, temperature=temperature)
        for size in sizes
    ]
    for _, samples in found[1:]:
        assert completions(samples) == completions(found[0][1])
    assert len({tuple(point.model_dump()["scores"]["brief"]["mean"] for point in r.points) for r, _ in found}) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_order_of_prompts_and_adapters_does_not_matter(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, temperature: float
) -> None:
    _, there = sweep(content, experts[:2], tmp_path / "there", temperature=temperature)
    posts = Path(content["task"]["data"])
    lines = posts.read_text().splitlines(keepends=True)[:4]
    posts.write_text("".join(reversed(lines)))
    _, back = sweep(content, experts[1::-1], tmp_path / "back", temperature=temperature)
    assert back.prompt_ids == there.prompt_ids[::-1]
    for name, point in there.points.items():
        assert back.points[name].completions == point.completions[::-1], name


def test_a_second_sweep_generates_nothing_and_says_the_same(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    first, again = Recording(), Recording()
    out = tmp_path / "eval"
    sweep(content, experts[:2], out, first)
    before = files(out)
    sweep(content, experts[:2], out, again)
    assert len(first.completed) == 4 * 4  # four points of four prompts
    assert again.completed == []
    assert files(out) == before


def test_more_lambdas_generate_only_the_points_between(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts[:2], tmp_path / "eval", lambdas=3)
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more, lambdas=5)
    assert set(more.completed) == {"soup-0.75-0.25", "soup-0.25-0.75"}


def test_a_new_reward_scores_what_is_there(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    _, before = sweep(content, experts[:2], tmp_path / "eval")
    content["rewards"] = {"brief": None, "positive": None}
    more = Recording()
    results, after = sweep(content, experts[:2], tmp_path / "eval", more)
    assert more.completed == []
    assert results.rewards == ("brief", "positive")
    assert completions(after) == completions(before)


def test_a_changed_reward_scores_anew_and_generates_nothing(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    content["rewards"] = {"own": {"function": f"{own}:own"}}
    own.write_text("def own(prompts, completions):\n    return [1.0] * len(prompts)\n")
    before, _ = sweep(content, experts[:2], tmp_path / "eval")
    own.write_text("def own(prompts, completions):\n    return [2.0] * len(prompts)\n")
    more = Recording()
    after, _ = sweep(content, experts[:2], tmp_path / "eval", more)
    assert [point.scores["own"].mean for point in before.points] == [1.0] * 4
    assert [point.scores["own"].mean for point in after.points] == [2.0] * 4
    assert more.completed == []


@pytest.mark.parametrize("change", [{"max_new_tokens": 5}, {"temperature": 0.5}, {"dtype": "bfloat16"}])
def test_other_settings_generate_anew(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    sweep(content, experts[:1], tmp_path / "eval")
    more = Recording()
    sweep(content, experts[:1], tmp_path / "eval", more, **change)
    assert set(more.completed) == {"base", "a"}


def test_an_adapter_with_other_content_is_generated_anew(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(experts[0], tmp_path / "x"))
    sweep(content, [folder, experts[1]], tmp_path / "eval")
    shutil.rmtree(folder)
    build_adapter(folder, tiny_model, seed=9)
    more = Recording()
    sweep(content, [folder, experts[1]], tmp_path / "eval", more)
    assert set(more.completed) == {"x", "soup-0.50-0.50"}


@pytest.mark.parametrize("prompts", [1, 7, 16])
def test_an_interrupted_sweep_goes_on_at_its_point_and_leaves_the_same_files(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, prompts: int
) -> None:
    sweep(content, experts[:2], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep(content, experts[:2], tmp_path / "eval", Recording(interrupt_after=prompts))
    assert not (tmp_path / "eval" / RESULTS).exists()
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more)
    finished = (prompts - 1) // 4  # the point of the interrupted prompt is done again
    assert len(more.completed) == 16 - 4 * finished
    assert files(tmp_path / "eval") == files(tmp_path / "whole")


def test_more_prompts_complete_only_the_new_ones(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    _, whole = sweep(content, experts[:2], tmp_path / "whole", prompts=7)
    sweep(content, experts[:2], tmp_path / "eval", prompts=4)
    more, fewer = Recording(), Recording()
    _, found = sweep(content, experts[:2], tmp_path / "eval", more, prompts=7)
    assert len(more.completed) == 4 * 3
    assert completions(found) == completions(whole)
    _, first = sweep(content, experts[:2], tmp_path / "eval", fewer, prompts=2)
    assert fewer.completed == []
    assert {name: texts[:2] for name, texts in completions(whole).items()} == completions(first)


def test_a_damaged_file_of_a_point_is_made_again(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "eval"
    _, expected = sweep(content, experts[:1], out)
    for path in (out / "points").glob("*/*.json"):
        path.write_text(path.read_text()[:-20])
    more = Recording()
    _, found = sweep(content, experts[:1], out, more)
    assert set(more.completed) == {"base", "a"}
    assert completions(found) == completions(expected)


def test_every_point_draws_the_same_random_numbers(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    """Mixing an adapter with its copy changes nothing, so every point has to give the same text."""
    copy = Path(shutil.copytree(experts[0], tmp_path / "copy"))
    _, samples = sweep(content, [experts[0], copy], tmp_path / "eval", temperature=1.0)
    found = completions(samples)
    assert found["a"] == found["copy"] == found["soup-0.50-0.50"]
    assert found["a"] != found["base"]
    assert len(set(found["a"])) > 1


def test_a_seed_decides_what_is_sampled(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    _, one = sweep(content, experts[:1], tmp_path / "one", temperature=1.0)
    _, same = sweep(content, experts[:1], tmp_path / "same", temperature=1.0)
    _, other = sweep({**content, "seed": 1}, experts[:1], tmp_path / "other", temperature=1.0)
    _, greedy = sweep(content, experts[:1], tmp_path / "greedy")
    assert completions(one) == completions(same)
    assert completions(one) != completions(other)
    assert completions(one) != completions(greedy)


def test_three_adapters_are_evaluated_on_the_lattice(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, samples = sweep(content, experts[:3], tmp_path / "eval")
    assert [point.id for point in results.points if point.kind == "soup"] == [
        "soup-0.50-0.50-0.00",
        "soup-0.50-0.00-0.50",
        "soup-0.00-0.50-0.50",
    ]
    folder = mixing.write(mixing.mix(experts[:3], [0.0, 0.5, 0.5]), tmp_path / "soup")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert completions(samples)["soup-0.00-0.50-0.50"] == generate(model, tiny_model)


def test_means_and_lengths_are_those_of_the_samples(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, samples = sweep(content, experts[:2], tmp_path / "eval", max_new_tokens=40, temperature=1.0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for point in results.points:
        rows = samples.points[point.id]
        assert rows.scores["brief"].tolist() == [-float(len(text.split())) for text in rows.completions]
        assert point.scores["brief"].mean == pytest.approx(np.mean(rows.scores["brief"]))
        counted = [len(tokenizer(text)["input_ids"]) for text in rows.completions]
        specials = rows.tokens - counted  # the end token, and padding tokens the random model says
        assert (specials >= rows.ended_by_eos).all()
        assert (rows.tokens[~rows.ended_by_eos] == 40).all()
        assert point.extras["completion_tokens"] == pytest.approx(rows.tokens.mean())
    ended = np.concatenate([samples.points[point.id].ended_by_eos for point in results.points])
    assert ended.any()


def test_results_say_what_was_evaluated(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, samples = sweep(content, experts[:2], tmp_path / "eval")
    assert (results.recipe, results.task, results.seed, results.method) == ("tiny", "posts", 0, "factors")
    assert results.base_model.sha256 == sha256_file(tiny_model / "model.safetensors")
    assert results.generation.model_dump() == {
        "max_new_tokens": 8,
        "temperature": 0.0,
        "dtype": "float32",
        "samples_per_prompt": 1,
        "kl_to": "base",
    }
    assert (results.prompts.count, results.prompts.split) == (4, "test")
    assert results.adapters["a"].sha256 == sha256_file(experts[0] / "adapter_model.safetensors")
    assert samples.prompt_ids == ("p0", "p1", "p2", "p3")
    assert samples.prompts == tuple(POSTS[:4])


def test_a_run_evaluates_its_baseline_as_one(tiny_run: Path) -> None:
    results = read_results(tiny_run / "run/eval/results.json")
    assert [point.id for point in results.points] == ["base", "positive", "soup-0.50-0.50", "brief", "morl-0.50-0.50"]
    assert results.adapters["morl-0.50-0.50"].kind == "morl"
    assert results.adapters["morl-0.50-0.50"].rewards == {"positive": 0.5, "brief": 0.5}


def test_fewer_prompts_than_asked_for_are_told(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    progress = Recording()
    results, _ = sweep(content, experts[:1], tmp_path / "eval", progress, prompts=50)
    assert results.prompts.count == 12
    assert progress.said[-1] == "There are only 12 held-out prompts of the 50 asked for."


def test_an_adapter_that_says_it_is_of_another_base_is_refused(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(experts[0], tmp_path / "x"))
    note = {"schema": 1, "kind": "expert", "name": "x", "base_model": {"name": "other", "sha256": "0" * 64}}
    (folder / "rsoup.json").write_text(json.dumps(note))
    with pytest.raises(AdapterError, match="x was trained on other, not on"):
        evaluate(resolve(recipe_of(content)), [folder], tmp_path / "eval", Silent())
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden_size": 48}, "the base model"), ({"num_hidden_layers": 3}, "has no tensor")],
)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    content: dict[str, Any], tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1, **settings)
    folder = build_adapter(tmp_path / "x", other, seed=1)
    with pytest.raises(AdapterError, match=message) as caught:
        evaluate(resolve(recipe_of(content)), [folder], tmp_path / "eval", Silent())
    assert caught.value.hint == "Give the base model that the adapter was trained on."


def test_a_failing_reward_keeps_the_completions(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def own(prompts, completions):\n    return [float('inf')] * len(prompts)\n")
    content["rewards"] = {"own": {"function": f"{own}:own"}}
    with pytest.raises(RewardError, match=r"returned inf for the completion '.*' of the prompt"):
        evaluate(resolve(recipe_of(content)), experts[:1], tmp_path / "eval", Silent())
    assert not (tmp_path / "eval" / RESULTS).exists()
    own.write_text("def own(prompts, completions):\n    return [1.0] * len(prompts)\n")
    more = Recording()
    sweep(content, experts[:1], tmp_path / "eval", more)
    assert set(more.completed) == {"a"}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_adapters_of_embeddings_and_whole_modules_are_evaluated_too(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    settings = {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "embed_tokens"]}
    folder = build_adapter(tmp_path / "x", tiny_model, seed=1, **settings)
    _, samples = sweep(content, [folder], tmp_path / "eval")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert completions(samples)["x"] == generate(model, tiny_model)
    assert completions(samples)["x"] != completions(samples)["base"]


def test_the_recipe_of_a_run_is_kept_resolved(tiny_run: Path) -> None:
    kept = yaml.safe_load((tiny_run / "run/recipe.yaml").read_text())
    assert kept["training"]["ppo"]["gae_lambda"] == 0.95
    assert parse_recipe(kept, "kept") == parse_recipe(yaml.safe_load((tiny_run / "tiny.yaml").read_text()), "tiny")


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_narrow_weights_give_what_peft_gives_with_them(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """The updates are small: folded into bfloat16 weights most of them would be rounded away.

    A processor that only emulates bfloat16 rounds on other ways, which may decide a token in a text or two.
    """
    settings = {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "lora_alpha": 0.5}
    folder = build_adapter(tmp_path / "x", tiny_model, seed=1, **settings)
    _, samples = sweep(content, [folder], tmp_path / "eval", dtype="bfloat16", batch_size=4)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    expected = generate(base, tiny_model)
    assert completions(samples)["base"] == expected
    model = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=True)
    adapted, own = generate(model, tiny_model), completions(samples)["x"]
    alike, unchanged = (sum(map(eq, own, texts)) for texts in (adapted, expected))
    assert alike >= len(own) - (0 if products.packs() else 2)
    assert unchanged < len(own) / 2


def test_a_run_that_was_moved_still_finds_its_adapters(tiny_run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_run / "run", tmp_path / "moved"))
    report = make_report([moved / "eval" / RESULTS], tmp_path / "report", Options())
    assert {Path(folder).parent for folder in report.adapters.values()} == {moved / "adapters"}
