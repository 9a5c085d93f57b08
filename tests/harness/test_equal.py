"""Benchmarks' numbers are those that lm-eval finds on the merged model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from command import Command
from rsoup.evaluation.results import RESULTS, Results, read_results, read_samples
from rsoup.harness.quiet import quiet
from tiny import build_adapter, build_tiny_model, recipe_content, write_recipe

from .small_tasks import FACTS, FOLDER, TEXTS, WORDS

CHAT = "{% for turn in messages %}{{ turn.content }} : {% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of small tasks with a chat template, and two adapters of it."""
    folder = tmp_path_factory.mktemp("measured")
    model = build_tiny_model(folder / "model", seed=3, tie_word_embeddings=True)
    (model / "chat_template.jinja").write_text(CHAT)
    for seed, name in enumerate("ab"):
        build_adapter(folder / name, model, seed)
    return folder


def content_of(folder: Path, out: Path, **evaluation: Any) -> dict[str, Any]:
    content = recipe_content(out, folder / "model")
    content["rewards"], content["morl"] = {"brief": None}, []
    content["evaluation"].update(benchmarks=[FACTS, WORDS, TEXTS], **evaluation)
    return content


def of_lm_eval(model: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, Any]:
    """Measure a model as lm-eval's own command does, from the folder of the tasks."""
    monkeypatch.chdir(FOLDER)
    with quiet():
        found = simple_evaluate(
            model=HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4),
            tasks=["facts.yaml", "words.yaml", "texts.yaml"],
            task_manager=TaskManager(include_defaults=False),
            **settings,
        )
    content: dict[str, Any] = found
    return content


SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_fewshot": 2, "limit": 5, "apply_chat_template": True, "system_instruction": "the lid"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "chat"])
def test_at_half_a_point_has_the_numbers_of_the_merged_model(
    rsoup: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Metrics and standard errors alike, of choices, of what is generated, and of the likelihood of texts."""
    recipe = write_recipe(tmp_path / "r.yaml", content_of(folder, tmp_path, lm_eval={**settings, "batch_size": 4}))
    called = rsoup("eval", recipe, "--adapters", folder / "a", folder / "b", "-o", tmp_path / "run")
    assert called.code == 0, called.err
    results = read_results(tmp_path / "run")
    point = results.point("soup-0.50-0.50")
    mixed = tmp_path / "merged"
    words = ["--lambda", 0.5, "--into", folder / "model", "--allow-different-starts", "-o", mixed]
    assert rsoup("mix", folder / "a", folder / "b", *words).code == 0
    expected = of_lm_eval(mixed, monkeypatch, **settings)
    found: dict[str, float] = {}
    for task, row in expected["results"].items():
        for key, value in row.items():
            if "," in key and "_stderr" not in key:
                score = point.benchmarks[f"{task}.{key}"]
                assert score.mean == pytest.approx(value, rel=1e-5), key
                stderr = row[key.replace(",", "_stderr,")]
                assert score.stderr == (None if stderr == "N/A" else pytest.approx(stderr, rel=1e-5)), key
                assert score.n == (settings.get("limit") or expected["n-samples"][task]["original"])
                found[f"{task}.{key}"] = value
    assert found.keys() == point.benchmarks.keys()
    assert len({round(own.benchmarks["texts.word_perplexity,none"].mean, 3) for own in results.points}) == 4
    assert {name: own.main for name, own in results.benchmarks.items()} == {
        "facts": "facts.acc,none",
        "words": "words.different,none",
        "texts": "texts.word_perplexity,none",
    }
    assert results.benchmarks["texts"].directions["texts.bits_per_byte,none"] == "minimize"
    check_samples(tmp_path / "run" / "eval", results, expected)


def check_samples(out: Path, results: Results, expected: dict[str, Any]) -> None:
    """Each document has the score and the answer that lm-eval gives it."""
    samples = read_samples(out / RESULTS, results)
    facts, words = samples.benchmarks["facts"], samples.benchmarks["words"]
    theirs = {name: expected["samples"][name] for name in ("facts", "words")}
    assert facts.ids == tuple(f"facts/{row['doc_id']}" for row in theirs["facts"])
    parts = facts.parts["soup-0.50-0.50"]["facts.acc_norm,none"]
    assert parts.tolist() == [row["acc_norm"] for row in theirs["facts"]]
    assert words.answers["soup-0.50-0.50"] == tuple(row["resps"][0][0] for row in theirs["words"])
    assert words.prompts == tuple(f"{row['doc']['question']} :" for row in theirs["words"])
    table = pq.read_table(out / "samples.parquet").to_pandas()
    of_point = table[table["point"] == "soup-0.50-0.50"]
    assert of_point["score:brief"].notna().sum() == results.prompts.count
    mean = of_point[of_point["benchmark"] == "texts"]["benchmark:texts.word_perplexity,none"].mean()
    assert mean == pytest.approx(results.point("soup-0.50-0.50").benchmarks["texts.word_perplexity,none"].mean)
    assert json.loads((out / "timing.json").read_text())["benchmarks"]["soup-0.50-0.50"].keys() == {
        "facts",
        "words",
        "texts",
    }
