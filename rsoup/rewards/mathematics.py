"""Whether an answer equals a reference as mathematics, by math-verify."""

from __future__ import annotations

import logging

import math_verify

for part in ("parser", "grader", "utils"):  # it warns of what is done on purpose here: the caller sets the time
    logging.getLogger(f"math_verify.{part}").setLevel(logging.ERROR)


def equals(answer: str, reference: str) -> float | None:
    """Return 1 or 0, None for a reference that cannot be read."""
    wanted = math_verify.parse(reference, parsing_timeout=None)
    if not wanted:
        return None
    found = math_verify.parse(answer, parsing_timeout=None)
    return float(math_verify.verify(wanted, found, timeout_seconds=None))
