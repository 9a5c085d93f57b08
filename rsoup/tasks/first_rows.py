"""What the first rows of a data set say together: one alone may lack what others have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rsoup.tasks.plain import is_empty
from rsoup.tasks.shapes import CONVERSATIONS, QUESTIONS

LOOK = 100
"""Rows that are looked at before any is read."""
TELLING = ("post", "reward_model", "prompt", "chosen", "rejected", "instruction", "text", *CONVERSATIONS, *QUESTIONS)
"""Columns that tell a shape: a row without one is of another shape."""


def completed(row: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row in which what is empty or missing is filled in as the first other row has it.

    Columns that tell the shape are not added, but for Alpaca's input.
    """
    whole = dict(row)
    optional = {"input"} if "instruction" in row else set[str]()
    for other in others:
        for name, value in other.items():
            may = name in whole or name not in TELLING or name in optional
            if may and is_empty(whole.get(name)) and not is_empty(value):
                whole[name] = value
    return whole
