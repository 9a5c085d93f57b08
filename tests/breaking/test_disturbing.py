"""Commands that are killed, starved of room or rights, and given files that were damaged; the long run is a benchmark.

python tests/benchmarks/faults.py
"""

from __future__ import annotations

import random

import pytest

from breaking.disturbing import DISTURBANCES, Yard
from breaking.works import WORKS

CASES = [
    *(("kill", work, 2) for work in ("mix", "into", "models", "extract", "train")),
    *(("fill", work, 2) for work in ("mix", "into", "models", "train")),
    *(("deny", work, 1) for work in ("into", "train")),
    *(("corrupt", work, 2) for work in ("train",)),
    *(("twice", work, 1) for work in ("mix", "models", "train")),
]


@pytest.mark.parametrize(("kind", "work", "count"), CASES, ids=[f"{kind}-{work}" for kind, work, _ in CASES])
def test_a_disturbed_command_ends_like_an_undisturbed_one(yard: Yard, kind: str, work: str, count: int) -> None:
    for number in range(count):
        DISTURBANCES[kind](yard, WORKS[work], random.Random(f"{kind}{work}{number}"))
