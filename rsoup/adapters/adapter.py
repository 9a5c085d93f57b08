"""An adapter in memory: the low-rank update of each module, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rsoup.adapters.config import AdapterConfig
from rsoup.adapters.tensorfile import Array
from rsoup.files import sha256_json

PREFIX = "base_model.model."
Kind = Literal["linear", "embedding"]
FACTOR_NAMES: dict[Kind, tuple[str, str]] = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}


@dataclass(frozen=True)
class Layer:
    """The update of one module: scale * up @ down, to be transposed for an embedding."""

    kind: Kind
    down: Array  # A (rank, in)
    up: Array  # B (out, rank)
    scale: float

    @property
    def rank(self) -> int:
        """The number of rows of A and columns of B."""
        return int(self.down.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of up @ down: (out, in)."""
        return int(self.up.shape[0]), int(self.down.shape[1])


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

    ``layers`` maps module names (without PEFT's prefix) to updates; ``saved`` holds the tensors of
    ``modules_to_save``, ``copies`` the base's own embeddings that PEFT stores beside an update of them.
    """

    name: str
    path: Path | None
    config: AdapterConfig
    layers: Mapping[str, Layer]
    saved: Mapping[str, Array] = field(default_factory=dict)
    copies: Mapping[str, Array] = field(default_factory=dict)
    sha256: str | None = None
    provenance: Provenance | None = None
    warnings: tuple[str, ...] = ()

    @property
    def identity(self) -> str | None:
        """A hash of the weights and of what the configuration makes of them; None for an adapter in memory."""
        if self.sha256 is None:
            return None
        scales = [[module, layer.scale] for module, layer in self.layers.items()]
        return sha256_json([self.sha256, scales, self.config.fan_in_fan_out])

    def tensors(self) -> dict[str, Array]:
        """Return every tensor under the name that PEFT gives it in adapter_model.safetensors."""
        tensors: dict[str, Array] = {}
        for module, layer in self.layers.items():
            down, up = factor_names(module, layer.kind)
            tensors[down], tensors[up] = layer.down, layer.up
        tensors.update({f"{PREFIX}{name}": array for name, array in {**self.saved, **self.copies}.items()})
        return tensors


def factor_names(module: str, kind: Kind) -> tuple[str, str]:
    """Return PEFT's names of a module's A and B."""
    down, up = FACTOR_NAMES[kind]
    return f"{PREFIX}{module}.{down}", f"{PREFIX}{module}.{up}"
