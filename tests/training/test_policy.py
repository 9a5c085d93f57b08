"""The policy: fresh factors change nothing, the start stays the start, and files fit the model or are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixing.test_architectures import Base
from mixing.test_experts import OWN, name_each
from rsoup import mixing
from rsoup.adapters import read_adapter
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.errors import AdapterError, ModelError
from rsoup.evaluation.applying import applied
from rsoup.models.language_model import LanguageModel
from rsoup.recipe import LoraSection
from rsoup.training.policy import Policy, fresh_config, read_start
from tiny import build_adapter, build_tiny_model

IDS = torch.tensor([[4, 5, 6, 7, 8]])


@torch.no_grad()
def logits(policy: Policy) -> Tensor:
    result: Tensor = policy.peft(input_ids=IDS).logits
    return result


def fresh(model: LanguageModel, **settings: Any) -> Policy:
    return Policy(model, fresh_config(LoraSection(r=2, alpha=4, **settings), model))


@torch.no_grad()
def disturb(policy: Policy) -> None:
    """Move every trained parameter."""
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.parameters:
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_fresh_policy_is_the_base_model_bit_for_bit(language_model: LanguageModel) -> None:
    with torch.no_grad():
        base = language_model.model(input_ids=IDS).logits
    policy = fresh(language_model)
    assert torch.equal(logits(policy), base)
    assert policy.values(torch.randn(2, 3, 32)).tolist() == [[0.0] * 3] * 2


def test_only_factors_and_the_value_head_are_trained(language_model: LanguageModel) -> None:
    policy = fresh(language_model, target_modules=["q_proj"])
    shapes = sorted(tuple(parameter.shape) for parameter in policy.parameters)
    assert shapes == sorted([(2, 32), (32, 2)] * 2 + [(1, 32), (1,)])


@pytest.mark.parametrize("continued", [False, True])
def test_the_start_stays_what_it_was(
    language_model: LanguageModel, tiny_model: Path, tmp_path: Path, continued: bool
) -> None:
    if continued:
        settings = {"target_modules": ["q_proj", "v_proj"]}
        policy = read_start(language_model, build_adapter(tmp_path / "given", tiny_model, seed=1, **settings))
    else:
        policy = fresh(language_model)
        policy.remember_start()
    start = logits(policy)
    disturb(policy)
    trained, factors = logits(policy), {name: tensor.clone() for name, tensor in policy.factors().items()}
    assert (trained - start).abs().max() > 0.1

    with policy.as_start():
        assert torch.equal(logits(policy), start)
    assert torch.equal(logits(policy), trained)
    with pytest.raises(RuntimeError, match="within"), policy.as_start():
        raise RuntimeError("within")
    assert torch.equal(logits(policy), trained)
    assert equal(policy.factors(), factors)


def test_what_is_saved_is_what_peft_loads(language_model: LanguageModel, tiny_model: Path, tmp_path: Path) -> None:
    policy = fresh(language_model)
    disturb(policy)
    policy.save(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, logits(policy), rtol=1e-5, atol=1e-5)


def test_a_policy_reads_back_what_it_saved(tiny_model: Path, language_model: LanguageModel, tmp_path: Path) -> None:
    policy = fresh(language_model)
    disturb(policy)
    policy.save(tmp_path / "adapter")
    expected, factors = logits(policy), policy.factors()
    policy.peft.unload()
    again = read_start(language_model, tmp_path / "adapter")
    assert equal(again.factors(), factors)
    assert torch.equal(logits(again), expected)


def test_dropout_is_on_within_its_block_alone(language_model: LanguageModel) -> None:
    policy = fresh(language_model, dropout=0.5)
    disturb(policy)
    still = logits(policy)
    with policy.learning(gradient_checkpointing=False):
        assert not torch.equal(logits(policy), still)
    assert torch.equal(logits(policy), still)


@pytest.mark.parametrize(
    ("modules", "message", "hint"),
    [
        (["q_projj"], "the adapter does not fit", "model.lora.target_modules"),
        (["lm_head"], "an adapter on the output layer cannot be trained here", "model.lora.target_modules"),
    ],
)
def test_layers_that_cannot_have_an_adapter_are_refused(
    language_model: LanguageModel, modules: list[str], message: str, hint: str
) -> None:
    with pytest.raises(ModelError) as caught:
        fresh(language_model, target_modules=modules)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_folder_without_weights_is_no_start(language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="is not an adapter"):
        read_start(language_model, tmp_path)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_only_plain_adapters_are_continued(
    language_model: LanguageModel, tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = build_adapter(tmp_path / "given", tiny_model, seed=1, **settings)
    with pytest.raises(AdapterError, match="only plain LoRA adapters can be continued"):
        read_start(language_model, folder)


def test_an_adapter_with_a_tensor_missing_is_refused(
    language_model: LanguageModel, tiny_model: Path, tmp_path: Path
) -> None:
    folder = build_adapter(tmp_path / "given", tiny_model, seed=1)
    tensors = load_file(folder / WEIGHTS_FILE)
    missing = sorted(tensors)[0]
    del tensors[missing]
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(AdapterError) as caught:
        read_start(language_model, folder)
    module, _, factor = missing.rpartition(".lora_")
    assert f"{module} needs" in caught.value.message
    assert f"lora_{factor}" in caught.value.message


def test_an_adapter_of_a_wider_model_is_refused(language_model: LanguageModel, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1, hidden_size=48)
    folder = build_adapter(tmp_path / "given", other, seed=1)
    with pytest.raises(AdapterError, match=r"is \(48, 2\), not \(32, 2\)"):
        read_start(language_model, folder)


def test_a_start_of_another_naming_is_continued_under_the_models_own(
    language_model: LanguageModel, tiny_model: Path, tmp_path: Path
) -> None:
    """Names of a vision-language model, and what a compiler left in them."""
    folder = build_adapter(tmp_path / "given", tiny_model, seed=1)
    expected = logits(read_start(language_model, folder))
    path = folder / WEIGHTS_FILE
    own = {
        name.replace("base_model.model.model.", "base_model.model.language_model.model._orig_mod."): value
        for name, value in load_file(path).items()
    }
    save_file(own, path)
    again = replace(language_model, model=AutoModelForCausalLM.from_pretrained(tiny_model))
    assert torch.equal(logits(read_start(again, folder)), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stacked", [True, False])
def test_experts_are_trained_and_continued(stacked: bool, tmp_path: Path) -> None:
    """Whether a start has them in one parameter or names each: the policy computes what the fold of it computes."""
    base = Base("qwen3_moe", tmp_path)
    base.parts = OWN["qwen3_moe"]  # type: ignore[attr-defined]
    folder = base.experts[0] if stacked else name_each(tmp_path / "named", base, 3)
    model = LanguageModel(copy.deepcopy(base.model), None, "base", str(base.folder), "")
    plain = model.model(input_ids=IDS).logits
    with applied(model, read_adapter(folder)), torch.no_grad():
        expected = model.model(input_ids=IDS).logits
    policy = read_start(model, folder)
    torch.testing.assert_close(logits(policy), expected, atol=1e-5, rtol=1e-4)
    assert (expected - plain).abs().max() > 0.01
    with policy.folded():
        torch.testing.assert_close(logits(policy), expected, atol=1e-5, rtol=1e-4)
    policy.save(tmp_path / "again")
    soup = mixing.mix([tmp_path / "again", folder], [0.5, 0.5], method="cat", allow_different_starts=True)
    with applied(LanguageModel(base.model, None, "base", "", ""), soup.adapter), torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-4)


def test_dropout_on_bare_parameters_is_refused(language_model: LanguageModel) -> None:
    with pytest.raises(ModelError, match="no dropout on bare parameters"):
        fresh(language_model, target_parameters=["mlp.experts.down_proj"], dropout=0.1)
