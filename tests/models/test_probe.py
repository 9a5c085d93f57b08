"""Models that cannot share a prompt between completions get rows of their own, and give the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rsoup.errors import ModelError
from rsoup.models.language_model import LanguageModel
from rsoup.models.probe import probe
from rsoup.models.sampling import sample
from tiny import build_tokenizer

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "initializer_range": 0.3}


def wrapped(model: PreTrainedModel) -> LanguageModel:
    return LanguageModel(model.eval().requires_grad_(False), build_tokenizer(), "tiny", "tiny", "")


def sliding(window: int) -> LanguageModel:
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=53, sliding_window=window, num_key_value_heads=2, intermediate_size=48, **SIZES)
    return wrapped(MistralForCausalLM(config))


def alibi() -> LanguageModel:
    torch.manual_seed(0)
    return wrapped(BloomForCausalLM(BloomConfig(vocab_size=53, n_layer=2, n_head=4, hidden_size=32)))


def plain(kind: str) -> LanguageModel:
    torch.manual_seed(0)
    if kind == "gpt2":
        return wrapped(GPT2LMHeadModel(GPT2Config(vocab_size=53, n_embd=32, n_layer=2, n_head=4)))
    return wrapped(Qwen2ForCausalLM(Qwen2Config(vocab_size=53, num_key_value_heads=2, intermediate_size=48, **SIZES)))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_ordinary_models_share_prompts(kind: str) -> None:
    assert probe(plain(kind)).shares_prefix


def test_a_model_with_alibi_does_not_share_prompts() -> None:
    """Its distances come from places in the row, which packing changes."""
    assert not probe(alibi()).shares_prefix


@pytest.mark.parametrize("make", [lambda: sliding(6), alibi], ids=["window", "alibi"])
def test_where_prompts_are_not_shared_the_numbers_are_those_of_bare_rows(make: Any) -> None:
    model = probe(make())
    ids, mask = model.pad([[5, 6, 7, 8, 9, 10], [11, 12]])
    completions = torch.randint(3, 50, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.logprobs(model.completion_states(ids, mask, completions), completions, 1.0)
        for prompt, row in enumerate(([5, 6, 7, 8, 9, 10], [11, 12])):
            for member in range(3):
                whole = torch.cat([torch.tensor(row), completions[prompt, member]])[None]
                logits = model.model(input_ids=whole).logits[0, len(row) - 1 : -1].log_softmax(-1)
                expected = logits.gather(-1, completions[prompt, member][:, None])[:, 0]
                torch.testing.assert_close(found[prompt, member], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: sliding(6), alibi], ids=["window", "alibi"])
def test_where_prompts_are_not_shared_sampling_draws_what_single_completions_draw(make: Any) -> None:
    model = probe(make())
    ids, mask = model.pad([[5, 6, 7, 8, 9, 10], [11, 12]])
    uniforms = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))
    together = sample(model, ids, mask, max_new_tokens=5, temperature=1.0, uniforms=uniforms)
    assert together.ids.shape == (2, 3, 5)
    for member in range(3):
        alone = sample(model, ids, mask, max_new_tokens=5, temperature=1.0, uniforms=uniforms[:, member : member + 1])
        assert torch.equal(alone.ids[:, 0], together.ids[:, member])


def test_a_window_longer_than_the_row_does_not_matter(tmp_path: Path) -> None:
    model = probe(sliding(64))
    assert model.packs(64)
    assert not model.packs(65)


def test_a_small_model_is_held_to_what_tells_its_scores_apart() -> None:
    """Bart's decoder counts the padding as positions: of small random weights that is a hundredth of a nat."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 24}
    config = BartConfig(vocab_size=53, max_position_embeddings=64, is_encoder_decoder=False, **sizes)
    with pytest.raises(ModelError, match="other log-probabilities"):
        probe(wrapped(BartForCausalLM(config)))
