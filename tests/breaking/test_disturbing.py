"""Commands that are killed, starved of room or rights, and given files that were damaged; the long run is a benchmark.

python tests/benchmarks/faults.py
"""

from __future__ import annotations

import random
import shutil
import signal

import pytest

from breaking.disturbing import DISTURBANCES, Yard
from breaking.troubled import check_end
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


@pytest.mark.parametrize(
    ("path", "at"),
    [("/[.]step-000004[.]", 0), ("checkpoints/positive$", 1)],
    ids=["before the last adapter along it is kept", "before its checkpoints are removed"],
)
def test_a_training_killed_in_its_last_moments_leaves_nothing_out_and_nothing_behind(
    yard: Yard, path: str, at: int
) -> None:
    work = WORKS["train"]
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    with yard.begin(work, yard.trouble("kill", at, path=path)) as process:
        assert check_end(process, signals=(signal.SIGKILL,)) == -signal.SIGKILL
    yard.age()
    yard.again(work, expected)


def test_damaged_metrics_are_named_with_what_to_do(yard: Yard) -> None:
    work = WORKS["train"]
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    with yard.begin(work, yard.trouble("kill", path="/[.]step-000004[.]")) as process:
        check_end(process, signals=(signal.SIGKILL,))
    metrics = yard.place / "run/checkpoints/positive/metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().replace(b'{"step": 2', b"{\x00step: 2"))
    with yard.begin(work) as process:
        assert check_end(process) == 1
        assert "metrics.jsonl, line 2: is damaged." in process.err
        assert f"Delete {metrics.parent}; its training then starts over." in process.err
    shutil.rmtree(metrics.parent)
    yard.again(work, expected)
