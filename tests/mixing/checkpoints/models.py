"""Small models on disk, written with the safetensors library and not with our own code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ..making import DTYPES

SHAPES = {
    "model.embed_tokens.weight": (11, 5),
    "model.layers.0.self_attn.q_proj.weight": (6, 5),
    "model.layers.0.mlp.down_proj.weight": (5, 7),
    "model.norm.weight": (5,),
    "lm_head.weight": (11, 5),
}
Q_PROJ, EMBEDDINGS, HEAD = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight"


def tensors(seed: int, dtype: str = "F32", shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}


def make_model(
    folder: Path, content: int | Mapping[str, Any] = 0, *, shards: int = 1, dtype: str = "F32", **config: Any
) -> Path:
    """Write a model of given tensors, or of random ones of a seed, in one file or in shards with an index."""
    folder.mkdir(parents=True)
    content = tensors(content, dtype) if isinstance(content, int) else dict(content)
    settings = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("generation_config.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text(f'{{"from": "{name}"}}')
    vocabulary = {"a": 0, "b": 1, "c": 2}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    if shards == 1:
        save_file(content, folder / "model.safetensors", {"format": "pt"})
        return folder
    names = {key: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(content)}
    for name in set(names.values()):
        save_file({key: content[key] for key in content if names[key] == name}, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def load(folder: Path) -> dict[str, Any]:
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
