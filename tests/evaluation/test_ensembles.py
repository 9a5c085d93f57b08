"""The baselines that mix predictions give what the experts' own distributions, mixed by hand, give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rsoup.errors import AdapterError
from rsoup.evaluation.timing import read_timing
from tiny import POSTS, build_adapter

from .sweeping import completions, sweep


def by_hand(tiny_model: Path, folders: list[Path], weights: list[float], rule: str, tokens: int = 8) -> tuple[str, ...]:
    """Decode greedily from the mixed predictions of separately loaded models, one prompt at a time, without a cache."""
    models = [PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), own) for own in folders]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = []
    for post in POSTS[:4]:
        ids = tokenizer(f"summary : {post} :", return_tensors="pt")["input_ids"]
        length = ids.shape[1]
        for _ in range(tokens):
            with torch.no_grad():
                each = torch.stack([model(input_ids=ids).logits[0, -1] for model in models])
            if rule == "ensemble":
                each = each.softmax(-1)
            token = (torch.tensor(weights) @ each).argmax()
            ids = torch.cat([ids, token[None, None]], dim=1)
            if token == tokenizer.eos_token_id:
                break
        texts.append(tokenizer.decode(ids[0, length:], skip_special_tokens=True).strip())
    return tuple(texts)


@pytest.mark.parametrize("rule", ["ensemble", "mod"])
def test_predictions_are_mixed_by_the_weights_of_each_soup(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path, rule: str
) -> None:
    results, samples = sweep(content, experts[:2], tmp_path / "eval", compare=[rule], lambdas=5)
    found = completions(samples)
    compared = [point for point in results.points if point.kind == rule]
    assert [point.id for point in compared] == [f"{rule}-0.75-0.25", f"{rule}-0.50-0.50", f"{rule}-0.25-0.75"]
    for point in compared:
        expected = by_hand(tiny_model, experts[:2], list(point.weights.values()), rule)
        assert found[point.id] == expected, point.id
        assert point.extras["passes_per_token"] == 2
        assert point.extras["kl"] > 0
    assert len({found[point.id] for point in compared} | {found["soup-0.50-0.50"], found["a"], found["b"]}) > 3


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_three_experts_with_other_modules_and_ranks(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    folders = [
        experts[0],
        build_adapter(tmp_path / "x", tiny_model, seed=7, r=3, target_modules=["o_proj", "q_proj"]),
        build_adapter(tmp_path / "y", tiny_model, seed=8, target_modules=["gate_proj", "embed_tokens"]),
    ]
    weights = {"a": 0.2, "x": 0.5, "y": 0.3}
    _, samples = sweep(content, folders, tmp_path / "eval", compare=["mod", "ensemble"], at=[weights], method="cat")
    for rule in ("mod", "ensemble"):
        expected = by_hand(tiny_model, folders, list(weights.values()), rule)
        assert completions(samples)[f"{rule}-0.20-0.50-0.30"] == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_ensemble_of_an_adapter_and_its_copy_is_the_adapter(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, temperature: float
) -> None:
    copy = Path(shutil.copytree(experts[0], tmp_path / "copy"))
    settings = {"compare": ["ensemble", "mod"], "temperature": temperature}
    results, samples = sweep(content, [experts[0], copy], tmp_path / "eval", **settings)
    found = completions(samples)
    assert found["a"] == found["ensemble-0.50-0.50"] == found["mod-0.50-0.50"]
    for name in ("ensemble-0.50-0.50", "mod-0.50-0.50"):
        assert results.point(name).extras["kl"] == pytest.approx(results.point("a").extras["kl"], rel=1e-4)


def test_what_it_costs_is_noted(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    results, _ = sweep(content, experts[:2], tmp_path / "eval", compare=["mod"])
    timing = read_timing(tmp_path / "eval")
    assert set(timing) == {point.id for point in results.points}
    assert min(timing.values()) > 0


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
def test_modules_trained_whole_cannot_run_side_by_side(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    folders = [
        build_adapter(tmp_path / name, tiny_model, seed, modules_to_save=["lm_head"]) for seed, name in enumerate("ab")
    ]
    with pytest.raises(AdapterError, match="trained whole") as caught:
        sweep(content, folders, tmp_path / "eval", compare=["mod"])
    assert "--compare" in caught.value.hint
