"""Rows that mix experts by weights of their own give what one materialised mix after the other gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rsoup import mixing
from rsoup.adapters import Adapter, Layer
from rsoup.errors import AdapterError
from rsoup.evaluation.applying import applied
from rsoup.evaluation.rows import row_weighted
from rsoup.mixing.compatibility import check_compatible
from rsoup.models import packing
from rsoup.models.language_model import LanguageModel
from rsoup.models.rowwise import Method, Mix, RowExperts, RowWeights
from tiny import build_adapter, build_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")

LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
GPT2_LIKE: dict[str, Any] = {
    "vocab_size": 53,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
LAYERS = ["q_proj", "o_proj", "gate_proj", "down_proj"]
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": (LLAMA_LIKE, [*LAYERS, "embed_tokens", "lm_head"]),
    "qwen3": (LLAMA_LIKE, LAYERS),
    "gemma2": ({**LLAMA_LIKE, "sliding_window": 4, "final_logit_softcapping": 5.0}, LAYERS),
    "gemma3_text": ({**LLAMA_LIKE, "sliding_window": 4}, [*LAYERS, "embed_tokens"]),
    "gpt_neox": (LLAMA_LIKE, ["query_key_value", "dense_4h_to_h"]),
    "gpt2": (GPT2_LIKE, ["c_attn", "c_proj", "wte"]),
    "mixtral": ({**LLAMA_LIKE, "num_local_experts": 4}, ["q_proj", "v_proj"]),
    "bloom": (
        {"vocab_size": 53, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
        ["query_key_value"],
    ),
}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16, 17, 18]]
MIXES = [
    Mix((0.7, 0.3, 0.0)),
    Mix((0.0, 0.0, 1.0)),
    Mix((1.4, -0.6, 0.2)),  # beyond the simplex
    Mix((0.2, 0.3, 0.1), base_weight=0.4),
]
MORE = [Mix((0.5, -0.5, 0.0), base_weight=1.0), Mix((0.0, 0.0, 0.0), base_weight=1.0)]


def build(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    settings, _ = KINDS[kind]
    torch.manual_seed(1)
    config = CONFIG_MAPPING[kind](**{"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, **settings})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    return LanguageModel(model, build_tokenizer(), "tiny", str(folder), "")


def experts_of(folder: Path, kind: str, **settings: Any) -> list[Adapter]:
    """Return three random adapters as PEFT writes them."""
    chosen = {"target_modules": KINDS[kind][1], "fan_in_fan_out": kind == "gpt2", **settings}
    return [mixing.read(build_adapter(folder / f"a{seed}", folder, seed, **chosen)) for seed in (1, 2, 3)]


def logits(model: LanguageModel, prompts: list[list[int]]) -> Tensor:
    """Return the logits of the next token. (n, V)."""
    ids, mask = model.pad(prompts)
    return model.logits(model.hidden_states(ids, mask, packing.prompt_positions(mask))[:, -1])


def one_by_one(model: LanguageModel, adapters: list[Adapter], mixes: list[Mix], method: Method) -> Tensor:
    """The slow, obvious way: a materialised mix for each prompt, folded into the base as an evaluation does."""
    rows = []
    for prompt, mix in zip(PROMPTS, mixes, strict=False):
        soup = mixing.mix(
            adapters,
            mix.weights,
            base_weight=mix.base_weight,
            method=method,
            allow_extrapolation=True,
            dtype="F32",
        )
        with applied(model, soup.adapter):
            rows.append(logits(model, [prompt]))
    return torch.cat(rows)


def at_once(model: LanguageModel, experts: RowExperts, mixes: list[Mix]) -> Tensor:
    with experts, experts.rows(RowWeights.of(mixes, model.device)):
        return logits(model, PROMPTS[: len(mixes)])


@pytest.mark.parametrize("method", ["factors", "cat"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_its_own_mix(tmp_path: Path, kind: str, method: Method) -> None:
    """The promise of the layer, on architectures with and without Conv1D, biases, windows, ALiBi, mixtures."""
    model = build(tmp_path, kind)
    adapters = experts_of(tmp_path, kind)
    base = logits(model, PROMPTS)
    experts = row_weighted(model, adapters, method)
    for mixes in (MIXES, MORE):
        expected = one_by_one(model, adapters, mixes, method)
        torch.testing.assert_close(at_once(model, experts, mixes), expected, rtol=2e-4, atol=2e-4)
    assert torch.equal(logits(model, PROMPTS), base)  # bit for bit, once the hooks are out
    moved = (one_by_one(model, adapters, MIXES, method) - base).abs().amax(-1)
    assert moved.min() > 0.01  # the mixes do differ from the base


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_beside_a_narrower_base_the_factors_stay_in_float32(tmp_path: Path, kind: str) -> None:
    model = build(tmp_path, kind, torch.bfloat16)
    adapters = experts_of(tmp_path, kind)
    experts = row_weighted(model, adapters, "cat")
    assert {own.down.dtype for own in experts.stacks.values()} == {torch.float32}
    found, expected = at_once(model, experts, MIXES), one_by_one(model, adapters, MIXES, "cat")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_cat_takes_other_ranks_scales_and_targets(tmp_path: Path) -> None:
    model = build(tmp_path, "llama")
    settings: list[dict[str, Any]] = [
        {"r": 3, "target_modules": ["q_proj", "up_proj"]},
        {"r": 2, "lora_alpha": 7, "target_modules": ["q_proj", "embed_tokens"]},
        {"r": 4, "use_rslora": True, "target_modules": "all-linear", "rank_pattern": {"k_proj": 1}},
    ]
    folders = [build_adapter(tmp_path / f"b{i}", tmp_path, i, **own) for i, own in enumerate(settings)]
    adapters = [mixing.read(folder) for folder in folders]
    experts = row_weighted(model, adapters, "cat")
    expected = one_by_one(model, adapters, MIXES, "cat")
    torch.testing.assert_close(at_once(model, experts, MIXES), expected, rtol=2e-4, atol=2e-4)
    ranks = {name.split(".")[-1]: len(own.owners) for name, own in experts.stacks.items()}
    assert (ranks["q_proj"], ranks["k_proj"], ranks["embed_tokens"]) == (9, 1, 2)  # one adapter of the summed rank
    with pytest.raises(AdapterError, match="updates"):
        check_compatible(adapters, "factors")


def test_random_weights_of_many_rows(tmp_path: Path) -> None:
    """Sixteen rows with weights of any size and sign, drawn anew, at an even length of the prompts."""
    model = build(tmp_path, "llama")
    adapters = experts_of(tmp_path, "llama")
    rng = np.random.default_rng(0)
    mixes = [Mix(tuple(rng.normal(size=3)), float(rng.normal())) for _ in range(16)]
    prompts = [rng.integers(2, 53, size=4).tolist() for _ in range(16)]
    for method in ("factors", "cat"):
        experts = row_weighted(model, adapters, method)
        with experts, experts.rows(RowWeights.of(mixes, model.device)):
            found = logits(model, prompts)
        for row, (prompt, mix) in enumerate(zip(prompts, mixes, strict=True)):
            soup = mixing.mix(
                adapters, mix.weights, base_weight=mix.base_weight, method=method, allow_extrapolation=True
            )
            with applied(model, soup.adapter):
                torch.testing.assert_close(found[row], logits(model, [prompt])[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["factors", "cat"])
def test_gradients_reach_factors_and_weights(tmp_path: Path, method: Method) -> None:
    """The gradients of one row are those that autograd finds for A, B and w of the written-out formula."""
    model = build(tmp_path, "llama")
    adapters = experts_of(tmp_path, "llama", target_modules=["down_proj"])
    experts = row_weighted(model, adapters, method)
    module = model.model.get_submodule(name := "model.layers.1.mlp.down_proj")
    own = experts.stacks[name]
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, -0.4, 1.3]], requires_grad=True)
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    own.down.requires_grad_(), own.up.requires_grad_()
    with experts, experts.rows(RowWeights(weights, weights)):
        (module(x) ** 2).sum().backward()
    found = own.down.grad, own.up.grad, weights.grad
    down, up, w = (tensor.detach().clone().requires_grad_() for tensor in (own.down, own.up, weights))
    outputs = []
    for row in range(2):
        parts = [(down[2 * j : 2 * j + 2], up[:, 2 * j : 2 * j + 2]) for j in range(3)]
        if method == "cat":  # the scale is in B_cat
            update = sum(w[row, j] * parts[j][1] @ parts[j][0] for j in range(3))
        else:
            mean_down, mean_up = (sum(w[row, j] * parts[j][side] for j in range(3)) for side in (0, 1))
            update = own.scale * mean_up @ mean_down
        outputs.append(module(x[row]) + x[row] @ update.T)
    (torch.stack(outputs) ** 2).sum().backward()
    for one, other in zip(found, (down.grad, up.grad, w.grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_completions_of_one_prompt_share_the_weights_of_its_row(tmp_path: Path) -> None:
    """Packed rows, and the separate ones of a model that cannot pack, take a row of weights for each prompt."""
    model = build(tmp_path, "llama")
    adapters = experts_of(tmp_path, "llama")
    experts = row_weighted(model, adapters, "factors")
    ids, mask = model.pad(PROMPTS[:2])
    completions = torch.arange(2 * 3 * 4).view(2, 3, 4) + 5
    with experts, experts.rows(RowWeights.of(MIXES[:2], model.device)):
        packed = model.completion_states(ids, mask, completions)
        apart = replace(model, shares_prefix=False).completion_states(ids, mask, completions)
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-4)
    for row in range(2):
        soup = mixing.mix(adapters, MIXES[row].weights, allow_extrapolation=True)
        with applied(model, soup.adapter):
            alone = model.completion_states(*model.pad([PROMPTS[row]]), completions[row : row + 1])
        torch.testing.assert_close(packed[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_an_error_inside_leaves_the_base(tmp_path: Path) -> None:
    model = build(tmp_path, "gpt2")
    base = logits(model, PROMPTS)
    experts = row_weighted(model, experts_of(tmp_path, "gpt2"), "factors")
    with experts:
        assert torch.equal(logits(model, PROMPTS), base)  # hooks without weights change nothing
    three = RowWeights.of(MIXES[:3], model.device)
    refused = pytest.raises(AdapterError, match="given 4 rows of a batch for 3 rows of weights")
    with refused, experts, experts.rows(three):
        logits(model, PROMPTS)
    assert torch.equal(logits(model, PROMPTS), base)
    assert not any(module._forward_hooks for module in model.model.modules())


def test_what_cannot_differ_from_row_to_row_is_refused_by_name(tmp_path: Path) -> None:
    model = build(tmp_path, "mixtral")
    saved = mixing.read(
        build_adapter(tmp_path / "saved", tmp_path, 0, target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    with pytest.raises(AdapterError, match=r"saved holds lm_head\.weight, trained whole"):
        row_weighted(model, [saved], "cat")
    plain = mixing.read(build_adapter(tmp_path / "plain", tmp_path, 0, target_modules=["q_proj"]))
    layer = Layer("linear", np.zeros((1, 32), np.float32), np.zeros((48, 1), np.float32), 1.0)
    mixture = replace(plain, layers={"model.layers.0.mlp.experts.0.w1": layer})
    with pytest.raises(AdapterError, match=r"plain changes model\.layers\.0\.mlp\.experts\.0\.w1, an expert"):
        row_weighted(model, [mixture], "cat")
    other = replace(plain, layers={"model.layers.0.self_attn.q_proj": layer})
    with pytest.raises(AdapterError, match=r"has \(48, 32\) for model.layers.0.self_attn.q_proj"):
        row_weighted(model, [other], "cat")
