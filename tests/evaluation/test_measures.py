"""Divergence, perplexity and diversity are those that the models' own distributions give, worked out by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rsoup.adapters.tensorfile import map_tensors, read_header, write_tensors
from rsoup.evaluation.cache import Completion
from rsoup.evaluation.measures import distinct, perplexity
from rsoup.files import sha256_file
from tiny import POSTS, build_adapter

from .sweeping import Recording, sweep


def kept_rows(out: Path, point_texts: tuple[str, ...]) -> list[Completion]:
    """Return what is kept of the point with these texts, in their order."""
    for path in (out / "points").glob("*/completions.json"):
        rows = [
            Completion.model_validate(row[0], strict=False) for row in json.loads(path.read_text())["rows"].values()
        ]
        if sorted(row.text for row in rows) == sorted(point_texts):
            return sorted(rows, key=lambda row: point_texts.index(row.text))
    raise AssertionError("nothing is kept of the point")


def by_hand(
    policy: Any, reference: Any, tiny_model: Path, post: str, tokens: tuple[int, ...], temperature: float
) -> Any:
    """Return the divergence along a completion and the reference's surprise, from full forward passes."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = tokenizer(f"summary : {post} :", return_tensors="pt")["input_ids"]
    ids = torch.cat([prompt, torch.tensor([tokens])], dim=1)
    with torch.no_grad():
        p, q = (model(input_ids=ids).logits[0, prompt.shape[1] - 1 : -1].double() for model in (policy, reference))
    one, other = (p / temperature).log_softmax(-1), (q / temperature).log_softmax(-1)
    surprise = -q.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).sum()
    return float((one.exp() * (one - other)).sum()), float(surprise)


def load(tiny_model: Path, adapter: Path | None = None) -> Any:
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    return base if adapter is None else PeftModel.from_pretrained(base, adapter)


@pytest.mark.parametrize(
    ("temperature", "effective", "settings"),
    [(0.0, 1.0, {}), (0.7, 0.7, {}), (0.7, 0.7, {"samples": 2}), (0.0, 1.0, {"max_new_tokens": 1})],
)
def test_divergence_and_surprise_are_those_of_the_two_models(
    content: dict[str, Any],
    experts: list[Path],
    tiny_model: Path,
    tmp_path: Path,
    temperature: float,
    effective: float,
    settings: dict[str, Any],
) -> None:
    out = tmp_path / "eval"
    results, _ = sweep(content, experts[:1], out, temperature=temperature, **settings)
    rows = [row for row in pq.read_table(out / "samples.parquet").to_pylist() if row["point"] == "a"]
    policy, base = load(tiny_model, experts[0]), load(tiny_model)
    tokens = {}
    for path in (out / "points").glob("*/completions.json"):
        for row in json.loads(path.read_text())["rows"].values():
            tokens |= {(own["text"], own["kl"]): tuple(own["tokens"]) for own in row}
    expected = []
    for row in rows:
        own = tokens[row["completion"], row["kl"]]
        expected.append(by_hand(policy, base, tiny_model, row["prompt"], own, effective))
        assert (row["kl"], row["surprise"]) == pytest.approx(expected[-1], rel=1e-3, abs=1e-4)
    point = results.point("a")
    assert point.extras["kl"] == pytest.approx(sum(kl for kl, _ in expected) / len(rows), rel=1e-3)
    total = sum(row["tokens"] for row in rows)
    assert point.extras["base_perplexity"] == pytest.approx(math.exp(sum(s for _, s in expected) / total), rel=1e-3)
    assert results.point("base").extras["kl"] == pytest.approx(0, abs=1e-5)


def test_divergence_is_measured_to_where_training_began(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    """The adapters began from ``init``, itself no fresh adapter: its own divergence is 0, that of the base is not."""
    folder = tmp_path / "adapters"
    for source, name in ((experts[0], "init"), (experts[1], "trained")):
        shutil.copytree(source, folder / name)
    sha256 = sha256_file(folder / "init" / "adapter_model.safetensors")
    for name, kind in (("init", "init"), ("trained", "expert")):
        note = {"schema": 1, "kind": kind, "name": name, "init_sha256": sha256}
        (folder / name / "rsoup.json").write_text(json.dumps(note))
    out = tmp_path / "eval"
    results, samples = sweep(content, [folder / "init", folder / "trained"], out, lambdas=2)
    assert results.generation.model_dump()["kl_to"] == "init"
    assert results.point("init").kind == "base"
    assert results.point("init").extras["kl"] == pytest.approx(0, abs=1e-5)
    assert results.point("base").extras["kl"] > 0.01
    policy, start, base = load(tiny_model, folder / "trained"), load(tiny_model, folder / "init"), load(tiny_model)
    rows = kept_rows(out, samples.points["trained"].completions)
    for post, row in zip(POSTS, rows, strict=False):
        kl, _ = by_hand(policy, start, tiny_model, post, row.tokens, 1.0)
        _, surprise = by_hand(policy, base, tiny_model, post, row.tokens, 1.0)
        assert (row.kl, row.surprise) == pytest.approx((kl, surprise), rel=1e-3)


def test_a_fresh_start_is_the_base(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    for name in ("init", "trained"):
        shutil.copytree(experts[0], folder / name)
    weights = folder / "init" / "adapter_model.safetensors"
    tensors = map_tensors(read_header(weights))
    fresh = {name: array * 0 if "lora_B" in name else array.copy() for name, array in tensors.items()}
    write_tensors(weights, fresh, {"format": "pt"})
    note = {"schema": 1, "kind": "expert", "name": "trained", "init_sha256": sha256_file(weights)}
    (folder / "trained" / "rsoup.json").write_text(json.dumps(note))
    progress = Recording()
    results, _ = sweep(content, [folder / "trained"], tmp_path / "eval", progress)
    assert results.generation.model_dump()["kl_to"] == "base"
    assert not any("KL" in text for text in progress.said)
    shutil.rmtree(folder / "init")
    sweep(content, [folder / "trained"], tmp_path / "other", progress)
    assert any("is not beside them: KL is measured to the base" in text for text in progress.said)


def test_measures_can_be_left_out_and_added_later(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "eval"
    without, _ = sweep(content, experts[:1], out, measures=False)
    assert not {"kl", "base_perplexity"} & set(without.points[0].extras)
    assert "kl" not in pq.read_schema(out / "samples.parquet").names
    added, again = Recording(), Recording()
    with_them, _ = sweep(content, experts[:1], out, added)
    assert set(added.completed) == {"base", "a"}
    assert {"kl", "base_perplexity"} <= set(with_them.points[0].extras)
    sweep(content, experts[:1], out, again, measures=False)
    assert again.completed == []


def test_distinct_counts_different_n_grams() -> None:
    """Rows 1 2 1 2 and 1 2: six tokens, two different; four pairs, two different."""
    rows = [[1, 2, 1, 2], [1, 2]]
    assert distinct(rows, 1) == 2 / 6
    assert distinct(rows, 2) == 2 / 4
    assert distinct([[7]], 2) == 0.0


def test_perplexity_is_the_exponential_of_the_mean_surprise() -> None:
    assert perplexity([math.log(8), math.log(2)], 4) == pytest.approx(2.0)
    assert math.isfinite(perplexity([1e6], 1))


def test_all_measures_are_there(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    results, _ = sweep(content, experts[:2], tmp_path / "eval")
    names = {"completion_tokens", "ended_by_eos", "distinct_1", "distinct_2", "kl", "base_perplexity"}
    assert all(set(point.extras) == names for point in results.points)
    assert results.point("base").extras["base_perplexity"] < results.point("a").extras["base_perplexity"]


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_an_adapter_of_the_output_layer_is_measured_too(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    folder = build_adapter(tmp_path / "x", tiny_model, seed=5, target_modules=["lm_head"])
    out = tmp_path / "eval"
    _, samples = sweep(content, [folder], out)
    policy, base = load(tiny_model, folder), load(tiny_model)
    rows = kept_rows(out, samples.points["x"].completions)
    for post, row in zip(POSTS, rows, strict=False):
        expected = by_hand(policy, base, tiny_model, post, row.tokens, 1.0)
        assert (row.kl, row.surprise) == pytest.approx(expected, rel=1e-3)
