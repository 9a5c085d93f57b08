"""A Llama of 1.1 billion parameters and adapters for it, with random weights, for the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rsoup.adapters.tensorfile import DTYPES, write_tensors

HIDDEN, INTERMEDIATE, LAYERS, KEY_VALUE, VOCABULARY = 2048, 5632, 22, 256, 32_000
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}


def write_adapter_folder(folder: Path, seed: int, *, rank: int = 16, dtype: str = "F32") -> None:
    """Write a LoRA adapter on every linear layer, as PEFT lays it out."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, (out, size) in LINEAR.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            for factor, shape in (("lora_A", (rank, size)), ("lora_B", (out, rank))):
                values = rng.standard_normal(shape, dtype=np.float32) * 0.02
                tensors[f"{prefix}.{factor}.weight"] = values.astype(DTYPES[dtype])
    folder.mkdir(parents=True)
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "benchmark-llama",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": sorted(name.split(".")[1] for name in LINEAR),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def write_base_folder(folder: Path, *, seed: int | None = None, layers: int = LAYERS) -> None:
    """Write the base model in bfloat16 (2.2 GB), or with a ``seed`` a model that was made from it."""
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{name}.weight": shape for name, shape in LINEAR.items()}
        shapes |= {f"{prefix}.{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
    shapes["model.norm.weight"] = (HIDDEN,)
    values = rng.standard_normal(VOCABULARY * HIDDEN, dtype=np.float32) * 0.02
    if seed is not None:
        values += np.random.default_rng(seed).standard_normal(len(values), dtype=np.float32) * 0.002
    block = values.astype(DTYPES["BF16"])
    tensors = {name: block[: int(np.prod(shape))].reshape(shape) for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
