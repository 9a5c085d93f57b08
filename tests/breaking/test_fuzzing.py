"""Broken recipes, rows, results and folders by the hundred: refused in two lines, or read as others read them.

RSOUP_FUZZ multiplies the number of inputs: RSOUP_FUZZ=100 pytest tests/breaking/test_fuzzing.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from breaking.fuzzing import TARGETS, attempt_of, fuzz
from breaking.works import Stock

INPUTS = {
    "recipes": 60,
    "rows": 60,
    "results": 15,
    "tables": 15,
    "models": 60,
    "merges": 60,
    "extractions": 60,
    "measured_models": 4,
    "bases": 6,
}
TIMES = int(os.environ.get("RSOUP_FUZZ", "1"))


@pytest.mark.parametrize("target", TARGETS)
def test_broken_input_is_refused_or_read_as_others_read_it(target: str, stock: Stock, tmp_path: Path) -> None:
    found = fuzz(target, attempt_of(target, stock, tmp_path), INPUTS[target] * TIMES)
    assert not found.faults, "\n".join(found.faults.values())
    assert found.refused
