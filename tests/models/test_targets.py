"""Which layers get an adapter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

from mixing.families import FAMILIES
from rsoup.models.targets import PAPER, lora_targets, order_targets
from rsoup.recipe import LoraSection

SEEING = [name for name, family in FAMILIES.items() if "seeing" in family.kind]


def build(name: str) -> Any:
    config = AutoConfig.for_model(name, **FAMILIES[name].settings)
    loader = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else None
    return (loader or transformers.AutoModelForCausalLM).from_config(config)


@pytest.mark.parametrize("name", SEEING)
def test_only_the_language_model_gets_adapters(name: str) -> None:
    model = build(name)
    trained = [part for part, _ in get_peft_model(model, config(model)).named_parameters() if "lora_" in part]
    assert trained
    assert not [part for part in trained if "vision" in part or "project" in part or "visual" in part]
    decoder = model.get_decoder()
    inside = {id(value) for value in decoder.parameters()}
    assert all(id(value) in inside for part, value in model.named_parameters() if "lora_" in part)


def config(model: Any, **lora: Any) -> LoraConfig:
    return LoraConfig(r=2, task_type="CAUSAL_LM", **lora_targets(LoraSection(**lora), model))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", set(PAPER)),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("gpt_neox", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("opt", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("qwen3_moe", set(PAPER)),
    ],
)
def test_the_papers_layers_or_all_linear_ones(name: str, expected: set[str]) -> None:
    targets = lora_targets(LoraSection(), build(name))["target_modules"]
    assert set(targets) == expected
    assert targets == sorted(targets)


def test_chosen_layers_and_parameters_are_taken_as_they_are() -> None:
    lora = LoraSection(target_modules=["v_proj", "down_proj"])
    assert lora_targets(lora, build("llama")) == {"target_modules": ["down_proj", "v_proj"]}
    lora = LoraSection(target_parameters=["mlp.experts.down_proj"])
    assert lora_targets(lora, build("qwen3_moe"))["target_parameters"] == ["mlp.experts.down_proj"]


def test_equal_trainings_write_equal_bytes(tmp_path: Path) -> None:
    """PEFT keeps targets in a set, whose order changes from process to process."""
    names = [*PAPER, "gate_proj", "up_proj", "down_proj"]
    written = []
    for seed in range(3):
        random.Random(seed).shuffle(names)
        made = LoraConfig(r=2, target_modules=list(names), task_type="CAUSAL_LM")
        torch.manual_seed(0)
        peft = get_peft_model(build("llama"), made)
        order_targets(made)
        peft.save_pretrained(tmp_path / str(seed))
        written.append((tmp_path / str(seed) / "adapter_config.json").read_bytes())
    assert written[0] == written[1] == written[2]
    assert json.loads(written[0])["target_modules"] == sorted(names)
