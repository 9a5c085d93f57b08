"""The language models that the architecture tests build: a line each, with what shapes it small."""

from __future__ import annotations

from typing import Any, NamedTuple

VOCABULARY = 48
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sliding_window": 32,
    "initializer_range": 0.2,
}
_SHORT = {key: value for key, value in _TEXT.items() if key != "head_dim"}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 24, "vocab_size": VOCABULARY}
_MOE = {
    **_TEXT,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_LATENT = {
    **_MOE,
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
}
_STATE = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}
_LINEAR = {"linear_key_head_dim": 4, "linear_value_head_dim": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
_MIXED = {**_MROPE, "partial_rotary_factor": 0.5, "mrope_interleaved": True}
_EYES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 16,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [],
}


def _seeing(text: dict[str, Any], eyes: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {"text_config": text, "vision_config": {**_EYES, **(eyes or {})}, "tie_word_embeddings": False, **settings}


class Family(NamedTuple):
    """A model type with its settings; ``kind`` groups families, one of each kind is always tested."""

    kind: str
    settings: dict[str, Any]


FAMILIES: dict[str, Family] = {
    "llama": Family("dense", _TEXT),
    "mistral": Family("dense", _TEXT),
    "qwen2": Family("dense", _SHORT),
    "qwen3": Family("dense", _TEXT),
    "phi3": Family("fused", _SHORT),
    "olmo": Family("dense", _SHORT),
    "olmo2": Family("dense", _SHORT),
    "olmo3": Family("dense", _SHORT),
    "stablelm": Family("dense", _SHORT),
    "granite": Family("dense", _SHORT),
    "glm4": Family("fused", _TEXT),
    "nemotron": Family("dense", _TEXT),
    "exaone4": Family("dense", _SHORT),
    "apertus": Family("dense", _SHORT),
    "seed_oss": Family("dense", _TEXT),
    "arcee": Family("dense", _SHORT),
    "cohere": Family("dense", _SHORT),
    "helium": Family("dense", _TEXT),
    "glm": Family("fused", _TEXT),
    "gemma4_text": Family(
        "dense", {**_TEXT, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}
    ),
    "biogpt": Family("dense", _SHORT),
    "bamba": Family("dense", {**_SHORT, **_STATE, "attn_layer_indices": [1]}),
    "phi": Family("other names", _SHORT),
    "falcon": Family("other names", {**_SHORT, "new_decoder_architecture": False}),
    "gptj": Family("other names", {**_GPT, "rotary_dim": 4}),
    "codegen": Family("other names", {**_GPT, "rotary_dim": 4}),
    "gpt_neox": Family("renamed head", _SHORT),
    "gpt2": Family("tied, transposed", {**_GPT, "n_inner": 16}),
    "gpt_bigcode": Family("tied", _GPT),
    "gemma": Family("tied", _TEXT),
    "gemma2": Family("tied", _TEXT),
    "gemma3_text": Family("tied", _TEXT),
    "cohere2": Family("tied", _TEXT),
    "smollm3": Family("tied", _SHORT),
    "starcoder2": Family("tied", _SHORT),
    "ernie4_5": Family("tied", _TEXT),
    "lfm2": Family("tied", _SHORT),
    "opt": Family("tied", {**_SHORT, "ffn_dim": 24, "word_embed_proj_dim": 16}),
    "bloom": Family("tied", {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY}),
    "mpt": Family("tied", {"d_model": 16, "n_heads": 2, "n_layers": 2, "vocab_size": VOCABULARY, "max_seq_len": 64}),
    "mixtral": Family("experts of other names", {**_MOE, "intermediate_size": 12}),
    "minimax_m2": Family("experts of other names", {**_MOE, "intermediate_size": 12}),
    "phimoe": Family("experts of other names", {**_MOE, "intermediate_size": 12}),
    "qwen2_moe": Family("experts", {**_MOE, "shared_expert_intermediate_size": 12}),
    "qwen3_moe": Family("experts", _MOE),
    "olmoe": Family("experts", {**_SHORT, "num_experts": 4, "num_experts_per_tok": 2}),
    "glm4_moe": Family("experts", _MOE),
    "dots1": Family("experts", _MOE),
    "deepseek_v3": Family("experts", _LATENT),
    "glm4_moe_lite": Family("experts", _LATENT),
    "ernie4_5_moe": Family("experts", {**_MOE, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}),
    "exaone_moe": Family("experts", _MOE),
    "hy_v3": Family("experts", _MOE),
    "lfm2_moe": Family("experts", {**_MOE, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "granitemoe": Family("experts in a renamed tensor", _MOE),
    "llama4_text": Family("experts in one tensor", {**_MOE, "intermediate_size_mlp": 24}),
    "gpt_oss": Family("transposed experts", {**_MOE, "intermediate_size": 16}),
    "gemma3": Family("seeing, tied", _seeing(_TEXT, mm_tokens_per_image=4) | {"tie_word_embeddings": True}),
    "llava": Family("seeing", _seeing({**_TEXT, "model_type": "llama"}, {"model_type": "clip_vision_model"})),
    "mistral3": Family("seeing", _seeing({**_TEXT, "model_type": "mistral"}, {"model_type": "pixtral"})),
    "idefics3": Family("seeing", _seeing({**_TEXT, "model_type": "llama"})),
    "qwen2_vl": Family("seeing", _seeing({**_SHORT, "rope_parameters": _MROPE}, {"embed_dim": 16})),
    "qwen2_5_vl": Family("seeing", _seeing({**_SHORT, "rope_parameters": _MROPE})),
    "glm4v": Family("seeing", _seeing({**_SHORT, "rope_parameters": _MROPE})),
    "llava_next": Family("seeing", _seeing({**_TEXT, "model_type": "llama"}, {"model_type": "clip_vision_model"})),
    "internvl": Family(
        "seeing", _seeing({**_SHORT, "model_type": "qwen2"}, {"image_size": [28, 28], "patch_size": [14, 14]})
    ),
    "llama4": Family(
        "seeing, its text alone",
        _seeing(
            {**_MOE, "intermediate_size_mlp": 24},
            {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
        ),
    ),
    "qwen3_5": Family(
        "seeing, its text alone", _seeing({**_TEXT, **_LINEAR, "num_hidden_layers": 4, "rope_parameters": _MIXED})
    ),
    "qwen3_vl_moe": Family("seeing, experts", _seeing({**_MOE, "rope_parameters": _MROPE})),
    "aria": Family(
        "seeing, transposed experts",
        _seeing(
            {**_TEXT, "model_type": "aria_text", "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
            {"model_type": "idefics3_vision"},
        ),
    ),
}
