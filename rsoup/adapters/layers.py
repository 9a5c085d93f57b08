"""The update of one layer, and what PEFT calls its factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsoup.adapters.tensorfile import Array

PREFIX = "base_model.model."
Kind = Literal["linear", "embedding", "parameter"]
FACTOR_NAMES: dict[str, tuple[str, str]] = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}
TOKEN_ROWS = "token_adapter.trainable_tokens_delta"
"""What PEFT calls the trained rows of an embedding."""


@dataclass(frozen=True)
class Place:
    """Where an update of a bare parameter belongs: expert ``index`` of ``count`` in ``module.parameter``."""

    module: str
    parameter: str
    index: int
    count: int

    @property
    def name(self) -> str:
        """The parameter's name."""
        return f"{self.module}.{self.parameter}"

    @property
    def key(self) -> str:
        """A name for the update of this expert alone."""
        return f"{self.module}.{self.index}.{self.parameter}" if self.count > 1 else self.name


@dataclass(frozen=True)
class Layer:
    """The update of one module or expert: scale * up @ down, to be transposed for an embedding.

    ``place`` is set for an update of a bare parameter (``target_parameters``); each expert's is a layer of its own.
    ``bare`` is such an update of a layer's weight: of the matrix as it lies in the model, not of what the layer does.
    """

    kind: Kind
    down: Array  # A (rank, in)
    up: Array  # B (out, rank)
    scale: float
    place: Place | None = None
    bare: bool = False

    @property
    def rank(self) -> int:
        """The number of rows of A and columns of B."""
        return int(self.down.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of up @ down: (out, in)."""
        return int(self.up.shape[0]), int(self.down.shape[1])


def factor_names(module: str, kind: Kind) -> tuple[str, str]:
    """Return PEFT's names of a module's A and B."""
    down, up = FACTOR_NAMES[kind]
    return f"{PREFIX}{module}.{down}", f"{PREFIX}{module}.{up}"
