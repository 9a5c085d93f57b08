"""timing.json: what an evaluation took, apart from what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError
from rsoup.evaluation.bench import Measured
from rsoup.files import read_json, write_json

TIMING = "timing.json"
SCHEMA = 1


def write_timing(out: Path, measured: Mapping[str, Measured], trainings: Mapping[str, float]) -> None:
    """Note what each point's completions took, measures included, and the seconds of the adapters' ``trainings``."""
    points = {}
    for name, own in measured.items():
        tokens = sum(len(completion.tokens) for completion in own.completions)
        points[name] = {"seconds": own.seconds, "tokens": tokens, "ms_per_token": round(1e3 * own.seconds / tokens, 3)}
    write_json(out / TIMING, {"schema": SCHEMA, "points": points, "trainings": dict(trainings)})


def read_timing(out: Path) -> dict[str, float]:
    """Return the milliseconds per token of each point; nothing where they are not known."""
    return _read(out, "points", lambda own: own["ms_per_token"])


def read_trainings(out: Path) -> dict[str, float]:
    """Return the seconds that the training of each adapter took; nothing where they are not known."""
    return _read(out, "trainings", lambda own: own)


def _read(out: Path, part: str, value: Callable[[Any], Any]) -> dict[str, float]:
    try:
        content = read_json(out / TIMING, schema=SCHEMA, what="a timing file", error=ResultsError)
        return {name: float(value(own)) for name, own in content[part].items()}
    except (ResultsError, AttributeError, KeyError, TypeError, ValueError):
        return {}
