"""Folding updates into weights and taking them out again; padding, decoding and the check of the output layer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import GPT2Config, GPT2LMHeadModel

from rsoup.errors import ModelError
from rsoup.models.language_model import LanguageModel, folded, masked_tokens
from rsoup.models.load import load_language_model
from rsoup.models.probe import probe
from rsoup.training.policy import Policy
from tiny import build_tiny_model, build_tokenizer

IDS = torch.tensor([[4, 5, 6, 7, 8]])


def fingerprint(module: torch.nn.Module) -> str:
    """Return a hash over the bytes of every weight."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def gpt2() -> LanguageModel:
    """Return a random GPT-2, whose layers keep their weights as (in, out)."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=53, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    return LanguageModel(GPT2LMHeadModel(config).eval().requires_grad_(False), build_tokenizer(), "gpt2", "gpt2", "")


def llama_policy(model: LanguageModel) -> Policy:
    return Policy(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))


def gpt2_policy(_model: LanguageModel) -> Policy:
    settings = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "init_lora_weights": False}
    return Policy(gpt2(), LoraConfig(r=2, task_type="CAUSAL_LM", **settings))


@pytest.mark.parametrize("make", [llama_policy, gpt2_policy])
def test_folded_factors_give_the_logits_of_peft_and_leave_no_trace(make: Any, language_model: LanguageModel) -> None:
    policy = make(language_model)
    model = policy.language_model.model
    before = fingerprint(policy.peft)
    with torch.no_grad():
        expected = policy.peft(input_ids=IDS).logits
        with policy.folded():
            assert fingerprint(policy.peft) != before
            found = model(input_ids=IDS).logits
        with policy.peft.disable_adapter():
            bare = policy.peft(input_ids=IDS).logits

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (bare - expected).abs().max() > 0.1
    assert fingerprint(policy.peft) == before


def test_weights_come_back_after_an_exception(language_model: LanguageModel) -> None:
    policy = llama_policy(language_model)
    before = fingerprint(policy.peft)
    with pytest.raises(RuntimeError, match="within"), policy.folded():
        raise RuntimeError("within")
    assert fingerprint(policy.peft) == before


def test_weights_come_back_when_an_update_does_not_fit() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(3, 3)
    before = fingerprint(one), fingerprint(other)
    updates = [(one.weight, torch.ones(2, 2)), (other.weight, torch.ones(2, 2))]
    with pytest.raises(RuntimeError), folded(updates):
        pytest.fail("the block is not entered")
    assert (fingerprint(one), fingerprint(other)) == before


def test_bfloat16_weights_keep_a_small_update_beside_them(tiny_model: Path) -> None:
    """Folded in, an update under half a unit in the last place would vanish."""
    policy = llama_policy(load_language_model(str(tiny_model), revision=None, dtype="bfloat16"))
    before = fingerprint(policy.peft)
    with torch.no_grad(), policy.folded():
        assert fingerprint(policy.peft) == before
        found = policy.language_model.model(input_ids=IDS).logits
        assert torch.equal(found, policy.peft(input_ids=IDS).logits)


def test_two_updates_of_one_weight_add_up_and_come_off() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    with folded([(layer.weight, torch.ones(1, 1)), (layer.weight, torch.ones(1, 1))]):
        assert layer.weight.item() == 3.0
    assert layer.weight.item() == 1.0


def test_prompts_are_padded_on_the_left(language_model: LanguageModel) -> None:
    ids, mask = language_model.pad([[5], [6, 7, 8]])
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[False, False, True], [True, True, True]]


def test_a_tokenizer_without_padding_fills_rows_with_its_end_token(language_model: LanguageModel) -> None:
    language_model.tokenizer.pad_token = None
    ids, _ = language_model.pad([[5], [6, 7]])
    assert ids.tolist() == [[language_model.tokenizer.eos_token_id, 5], [6, 7]]


def test_rows_of_tokens_leave_out_what_is_masked() -> None:
    ids = torch.tensor([[7, 8, 1, 9], [7, 0, 0, 0]])
    mask = torch.tensor([[True, True, True, False], [False, False, False, False]])
    assert masked_tokens(ids, mask) == [[7, 8, 1], []]


def test_completions_end_at_the_end_tokens_of_model_and_tokenizer(language_model: LanguageModel) -> None:
    assert language_model.stop_ids == [1]
    language_model.model.generation_config.eos_token_id = [7, 9]
    assert language_model.stop_ids == [7, 9, 1]
    language_model.model.generation_config.eos_token_id = None
    assert language_model.stop_ids == [1]
    language_model.tokenizer.eos_token = None
    assert language_model.stop_ids == []


def test_a_model_that_changes_its_logits_in_an_unknown_way_is_refused(language_model: LanguageModel) -> None:
    def shift(_module: Any, _inputs: Any, output: Any) -> Any:
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output

    probe(language_model)
    language_model.model.register_forward_hook(shift)
    with pytest.raises(ModelError, match="its logits are not those of its output layer"):
        probe(language_model)


def test_tied_embeddings_are_no_obstacle(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tied", seed=1, tie_word_embeddings=True)
    model = load_language_model(str(folder), revision=None, dtype="float32")
    hidden = model.hidden_states(IDS, torch.ones_like(IDS), torch.arange(5)[None])
    torch.testing.assert_close(model.logits(hidden), model.model(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
