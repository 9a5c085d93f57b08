"""How large a first recipe may be, and the model that it starts from."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from rsoup.models.bundled import BUNDLED

SMALL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Size:
    """The settings that decide how long a run takes."""

    what: str
    steps: int
    prompts_per_step: int
    completions_per_prompt: int
    learning_rate: str
    rank: int
    new_tokens: int
    prompts: int
    lambdas: int


SIZES = {
    "try": Size("minutes: it shows that all works, and a first front", 6, 4, 8, "1e-3", 8, 24, 32, 5),
    "real": Size("hours: settings to begin a real experiment with", 100, 16, 8, "1e-4", 16, 64, 200, 11),
}


def default_base(there: Callable[[str], bool] | None = None) -> str | None:
    """Return the bundled small model if all that reads it is installed, else None."""
    there = there or (lambda module: importlib.util.find_spec(module) is not None)
    return SMALL if there(BUNDLED[SMALL].module) and there("gguf") else None
