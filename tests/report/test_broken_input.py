"""Damaged input at random places: refused with a message, never a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsoup.errors import ResultsError
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options

from .synthetic import write_line

DATA = Path(__file__).parent / "data"
VALUES = [None, True, 0, -1, 1e308, 10**400, "x", "", [], {}, [1], {"a": 1}, float("nan"), float("inf"), "\ud800"]
OBJECTIVES = {"r1": "grs.LABEL_0", "r2": "bfsd.FAITHFUL-bfsd.HALLUCINATED"}


def places(value: object, above: tuple = ()) -> Iterator[tuple]:
    """Yield the path to every value inside ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in inside:
        yield (*above, key)
        yield from places(own, (*above, key))


def damaged(data: bytes, chance: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(broken))
        if chance.random() < 0.3:
            del broken[at : at + chance.randrange(1, 20)]
        else:
            broken[at] = chance.choice(b'0123456789,"\n-.e[]{}():x\x00\xff')
    return bytes(broken)


def refused_or_read(path: Path, objectives: dict[str, str]) -> bool:
    """Return whether the input was refused; any other error fails the test."""
    try:
        analyse(read_inputs([path], objectives, {}), Options(draws=100))
    except ResultsError as refusal:
        return bool(refusal.message and refusal.hint)
    return False


def test_a_results_file_with_one_value_changed(tmp_path):
    path, chance = write_line(tmp_path, prompts=3), random.Random(0)
    text = path.read_text()
    paths = list(places(json.loads(text)))
    refused = 0
    for _ in range(250):
        content = json.loads(text)
        *above, last = chance.choice(paths)
        holder = content
        for key in above:
            holder = holder[key]
        if chance.random() < 0.3:
            del holder[last]
        else:
            holder[last] = chance.choice(VALUES)
        path.write_text(json.dumps(content))
        refused += refused_or_read(path, {})
    assert refused > 150


def test_a_samples_file_with_bytes_changed(tmp_path):
    path, chance = write_line(tmp_path, prompts=3), random.Random(0)
    file = path.parent / "samples.parquet"
    data = file.read_bytes()
    refused = 0
    for _ in range(150):
        file.write_bytes(damaged(data, chance))
        refused += refused_or_read(path, {})
    assert refused > 75


@pytest.mark.parametrize(("name", "objectives"), [("news.csv", {}), ("printed.txt", OBJECTIVES)])
def test_a_text_with_bytes_changed(tmp_path, name, objectives):
    data, path, chance = (DATA / name).read_bytes(), tmp_path / name, random.Random(0)
    refused = 0
    for _ in range(200):
        path.write_bytes(damaged(data, chance))
        refused += refused_or_read(path, objectives)
    assert refused > 20


def test_nesting_without_end_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("[" * 100_000)
    assert refused_or_read(path, {})
