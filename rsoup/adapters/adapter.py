"""An adapter in memory: the low-rank update of each module, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsoup.adapters.config import AdapterConfig
from rsoup.adapters.layers import PREFIX, Layer, factor_names
from rsoup.adapters.stacks import stacked
from rsoup.adapters.tensorfile import Array
from rsoup.files import sha256_json


@dataclass(frozen=True)
class Provenance:
    """What rsoup.json says about an adapter; ``raw`` holds the whole file."""

    kind: str
    name: str
    base_name: str | None
    base_sha256: str | None
    init_sha256: str | None
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as numpy arrays.

    ``layers`` maps module names (without PEFT's prefix) to updates; ``saved`` holds what was trained as it is: the
    tensors of ``modules_to_save``, biases, rows of tokens; ``copies`` the base's own embeddings that PEFT stores beside
    an update of them. ``companions`` are the files of a tokenizer and chat templates beside it, with their hashes.
    """

    name: str
    path: Path | None
    config: AdapterConfig
    layers: Mapping[str, Layer]
    saved: Mapping[str, Array] = field(default_factory=dict)
    copies: Mapping[str, Array] = field(default_factory=dict)
    sha256: str | None = None
    provenance: Provenance | None = None
    companions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def identity(self) -> str | None:
        """A hash of the weights and of what the configuration makes of them; None for an adapter in memory."""
        if self.sha256 is None:
            return None
        scales = [[module, layer.scale] for module, layer in self.layers.items()]
        tokens = [[name, list(ids)] for name, ids in self.config.token_indices.items()]
        return sha256_json([self.sha256, scales, self.config.fan_in_fan_out, *([tokens] if tokens else [])])

    def tensors(self) -> dict[str, Array]:
        """Return every tensor under the name that PEFT gives it in adapter_model.safetensors."""
        tensors: dict[str, Array] = {}
        for module, layer in self.layers.items():
            if not layer.place:
                down, up = factor_names(module, layer.kind)
                tensors[down], tensors[up] = layer.down, layer.up
        for module, factors in stacked(layer for layer in self.layers.values() if layer.place).items():
            tensors.update(zip(factor_names(module, "linear"), factors, strict=True))
        tensors.update({f"{PREFIX}{name}": array for name, array in {**self.saved, **self.copies}.items()})
        return tensors
