"""Rows that share a prompt give what separate rows give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rsoup.models import packing
from rsoup.models.language_model import LanguageModel
from rsoup.models.probe import probe
from rsoup.models.sampling import sample
from rsoup.training.policy import Policy
from tiny import build_tokenizer

LLAMA_LIKE = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GPT2_LIKE = {"vocab_size": 53, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
PLAIN: dict[str, dict[str, Any]] = {
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "mistral": {**LLAMA_LIKE, "sliding_window": 64},
    "gemma": LLAMA_LIKE,
    "gemma2": {**LLAMA_LIKE, "sliding_window": 64, "final_logit_softcapping": 5.0},
    "phi3": {**LLAMA_LIKE, "pad_token_id": 0, "sliding_window": None},
    "granite": {**LLAMA_LIKE, "logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "cohere": {**LLAMA_LIKE, "logit_scale": 0.25, "pad_token_id": 0},
    "gpt_neox": LLAMA_LIKE,
    "gpt2": {**GPT2_LIKE, "resid_pdrop": 0.0},
    "gptj": {**GPT2_LIKE, "rotary_dim": 4},
    "opt": {
        "vocab_size": 53,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "init_std": 0.3,
        "pad_token_id": 0,
    },
}
"""Models whose completions can share a row."""

NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
APART: dict[str, dict[str, Any]] = {
    "mistral": {**LLAMA_LIKE, "sliding_window": 4},
    "gemma3_text": {**LLAMA_LIKE, "sliding_window": 4},
    "gpt_neo": {**NEO, "vocab_size": 53, "intermediate_size": 48, "window_size": 9, "initializer_range": 0.3},
    "bloom": {"vocab_size": 53, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
}
"""Models that look back by places in the row (a window, ALiBi), so that completions need rows of their own."""

EAGER = ("llama", "mistral", "gpt2", "gemma2", "gpt_neo", "gptj", "bloom")
"""Tried with plain attention, the last four because transformers does not give them the fused one."""
FUSED = ("llama", "mistral", "gpt2", "gemma3_text", *(kind for kind in PLAIN if kind not in EAGER))

CASES = [
    pytest.param(kind, settings, attention, id=f"{kind}-{attention}-{'plain' if models is PLAIN else 'apart'}")
    for models in (PLAIN, APART)
    for kind, settings in models.items()
    for attention, kinds in (("eager", EAGER), ("sdpa", FUSED))
    if kind in kinds
]
PROMPTS = ([5, 6, 7], [8, 9, 10, 11, 12, 13], [14])
TOKENS = 6


def build(kind: str, settings: dict[str, Any], attention: str = "sdpa") -> LanguageModel:
    """Return a random model of an architecture."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{"bos_token_id": 1, "eos_token_id": 1, **settings})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    return probe(LanguageModel(model.requires_grad_(False), build_tokenizer(), kind, kind, "0"))


def with_factors(model: LanguageModel) -> Policy:
    """Put random LoRA factors into every linear layer of a model."""
    turned = model.config.model_type == "gpt2"
    settings = {"target_modules": "all-linear", "init_lora_weights": False, "fan_in_fan_out": turned}
    return Policy(model, LoraConfig(r=2, task_type="CAUSAL_LM", **settings))


def completions(group: int) -> Tensor:
    """Return random completions of the prompts. (P, G, T)."""
    return torch.randint(2, 53, (len(PROMPTS), group, TOKENS), generator=torch.Generator().manual_seed(group))


def separate(model: LanguageModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return states and log-probabilities of completions by one unpadded forward pass for each. (P, G, T, ...)."""
    states, logprobs = [], []
    for prompt, members in zip(PROMPTS, ids, strict=True):
        for completion in members:
            row = torch.tensor([prompt + completion.tolist()])
            own = model.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            logprobs.append(own.gather(-1, completion[:, None]).squeeze(-1))
            hidden = model.model.get_decoder()(input_ids=row, use_cache=False).last_hidden_state
            states.append(hidden[0, len(prompt) - 1 : -1])
    return torch.stack(states).view(*ids.shape, -1), torch.stack(logprobs).view(ids.shape)


def gradients(policy: Policy, logprobs: Tensor) -> dict[str, Tensor]:
    """Return the gradient of a weighted sum of log-probabilities with respect to every factor."""
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(7))
    factors = [parameter for parameter in policy.peft.parameters() if parameter.requires_grad]
    names = [name for name, parameter in policy.peft.named_parameters() if parameter.requires_grad]
    return dict(zip(names, torch.autograd.grad((weights * logprobs).sum(), factors), strict=True))


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(("kind", "settings", "attention"), CASES)
def test_completions_give_what_separate_rows_give(
    kind: str, settings: dict[str, Any], attention: str, group: int
) -> None:
    model = build(kind, settings, attention)
    policy = with_factors(model)
    ids = completions(group)
    prompt_ids, prompt_mask = model.pad(PROMPTS)

    states = model.completion_states(prompt_ids, prompt_mask, ids)
    logprobs = model.logprobs(states, ids, 1.0)
    expected_states, expected_logprobs = separate(model, ids)

    torch.testing.assert_close(states, expected_states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=1e-4, atol=1e-4)
    expected_gradients = gradients(policy, expected_logprobs)
    assert any(gradient.abs().max() > 0.1 for gradient in expected_gradients.values())
    torch.testing.assert_close(gradients(policy, logprobs), expected_gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "settings", "attention"), CASES)
def test_sampling_a_group_is_sampling_its_members_alone(kind: str, settings: dict[str, Any], attention: str) -> None:
    model = build(kind, settings, attention)
    ids, mask = model.pad(PROMPTS)
    uniforms = torch.rand(len(PROMPTS), 3, TOKENS, generator=torch.Generator().manual_seed(0))
    together = sample(model, ids, mask, max_new_tokens=TOKENS, temperature=1.0, uniforms=uniforms)
    for row, prompt in enumerate(PROMPTS):
        for member in range(3):
            own = uniforms[row : row + 1, member : member + 1]
            alone = sample(model, *model.pad([prompt]), max_new_tokens=TOKENS, temperature=1.0, uniforms=own)
            assert together.ids[row, member].tolist() == alone.ids[0, 0].tolist()


@pytest.mark.parametrize("kind", PLAIN)
def test_completions_share_a_row_where_they_can(kind: str) -> None:
    assert build(kind, PLAIN[kind], "eager").packs(20)


@pytest.mark.parametrize("kind", APART)
def test_completions_get_rows_of_their_own_where_they_must(kind: str) -> None:
    assert not build(kind, APART[kind], "eager").packs(20)


def test_a_window_matters_only_to_rows_that_are_longer() -> None:
    model = build("mistral", {**LLAMA_LIKE, "sliding_window": 16})
    assert model.packs(16)
    assert not model.packs(17)


def test_what_follows_a_completion_changes_nothing_before_it() -> None:
    """Completions of unequal length are padded on the right, and the padding is not seen."""
    model = build("llama", LLAMA_LIKE)
    prompt_ids, prompt_mask = model.pad(PROMPTS)
    ids = completions(3)
    padded = ids.clone()
    lengths = torch.tensor([[1, 6, 3], [2, 2, 5], [4, 1, 6]])
    kept = torch.arange(TOKENS) < lengths[:, :, None]
    padded[~kept] = model.pad_id

    full = model.completion_states(prompt_ids, prompt_mask, ids)
    cut = model.completion_states(prompt_ids, prompt_mask, padded)

    torch.testing.assert_close(cut[kept], full[kept], rtol=1e-5, atol=1e-5)


def test_more_padding_on_the_left_changes_nothing() -> None:
    model = build("llama", LLAMA_LIKE)
    ids = completions(3)
    prompt_ids, prompt_mask = model.pad(PROMPTS)
    wider_ids = torch.nn.functional.pad(prompt_ids, (4, 0), value=17)
    wider_mask = torch.nn.functional.pad(prompt_mask, (4, 0), value=False)

    torch.testing.assert_close(
        model.completion_states(wider_ids, wider_mask, ids),
        model.completion_states(prompt_ids, prompt_mask, ids),
        rtol=1e-4,
        atol=1e-5,
    )


def test_positions_start_at_the_first_real_token() -> None:
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])
    assert packing.prompt_positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert packing.completion_positions(mask, group=2, first=0, count=2).tolist() == [[2, 2, 3, 3], [4, 4, 5, 5]]
    assert packing.completion_positions(mask, group=2, first=5, count=1).tolist() == [[7, 7], [9, 9]]


def test_a_row_holds_the_completions_token_by_token() -> None:
    prompts = torch.tensor([[1, 2]])
    ids = torch.tensor([[[10, 11, 12], [20, 21, 22]]])
    assert packing.pack(prompts, ids).tolist() == [[1, 2, 10, 20, 11, 21]]


def test_unpacked_states_are_those_before_each_token() -> None:
    row = torch.arange(6.0).view(1, 6, 1)  # p1 p2 a1 b1 a2 b2
    states = packing.unpack(row, length=2, group=2)
    assert states.squeeze(-1).tolist() == [[[1, 2, 4], [1, 3, 5]]]


def test_a_completion_sees_its_prompt_and_itself() -> None:
    mask = packing.attention_mask(torch.tensor([[False, True]]), group=2, tokens=2)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],  # padding sees itself alone
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],  # a1
        [0, 1, 0, 1, 0, 0],  # b1
        [0, 1, 1, 0, 1, 0],  # a2
        [0, 1, 0, 1, 0, 1],  # b2
    ]


def test_the_last_queries_get_the_last_rows_of_the_mask() -> None:
    prompt_mask = torch.tensor([[False, True, True], [True, True, True]])
    full = packing.attention_mask(prompt_mask, group=2, tokens=3)
    assert torch.equal(packing.attention_mask(prompt_mask, group=2, tokens=3, queries=2), full[:, :, -2:])


def test_one_completion_makes_an_ordinary_mask() -> None:
    mask = packing.attention_mask(torch.tensor([[False, True]]), group=1, tokens=2)
    assert mask.tolist() == [[False, True, True, True]]


def test_an_additive_mask_shuts_out_what_is_false() -> None:
    added = packing.additive(torch.tensor([[[[True, False]]]]), torch.float32)
    assert added.flatten().tolist() == [0.0, torch.finfo(torch.float32).min]
