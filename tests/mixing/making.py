"""Small adapters on disk, as PEFT lays them out, written with the safetensors library and not with our own code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from rsoup.adapters import Adapter

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
SHAPES = {"model.layers.0.self_attn.q_proj": (6, 5), "model.layers.0.mlp.down_proj": (4, 7)}


def make_adapter(
    folder: Path,
    seed: int = 0,
    *,
    rank: int = 2,
    alpha: float = 4,
    dtype: str = "F32",
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    extra: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write an adapter with normal random factors; ``extra`` adds tensors, ``config`` settings."""
    rng = np.random.default_rng(seed)
    patterns = config.get("rank_pattern", {})
    tensors: dict[str, Any] = {}
    for module, (out, size) in shapes.items():
        own = patterns.get(module, rank)
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.standard_normal((own, size)).astype(DTYPES[dtype])
        tensors[f"base_model.model.{module}.lora_B.weight"] = rng.standard_normal((out, own)).astype(DTYPES[dtype])
    tensors.update(extra or {})
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module in shapes}),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if provenance is not None:
        (folder / "rsoup.json").write_text(
            json.dumps({"schema": 1, "kind": "expert", "name": folder.name, **provenance})
        )
    return folder


def update_of(adapter: Adapter, module: str) -> Any:
    """Return a module's full update in float64: scale B A, zero where the adapter leaves the module alone."""
    if module not in adapter.layers:
        return 0.0
    layer = adapter.layers[module]
    return layer.scale * (layer.up.astype(np.float64) @ layer.down.astype(np.float64))


def relative_error(found: Any, expected: Any) -> float:
    """Return |found - expected| / |expected| in the Frobenius norm."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))
