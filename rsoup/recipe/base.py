"""What all sections of a recipe share: how values are bounded, what names are reserved, how strict they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

TEMPLATE_FIELDS = {"post", "completion", "bos", "eos", "sep", "cls"}
"""What a classifier's template may fill in."""
TEMPLATE_WORDS = ("chat", "pair", "text")
"""What a classifier's template may be in place of a text."""

ResponseRule = Literal["whole", "first_sentence", "after_think"]
"""What rewards read of an answer."""

Direction = Literal["maximize", "minimize"]
"""Which way a reward is better."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What a reward may be called: its name becomes a folder."""


START = "init"
"""The name of the adapter that all trainings of a run begin from."""
RESERVED_NAMES = (START, "base")
RESERVED_PREFIXES = ("morl-", "soup-")
"""Names of adapters and points that rewards must not take."""


class Section(BaseModel):
    """A part of the recipe: frozen, and strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
