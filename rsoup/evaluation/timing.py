"""timing.json: what an evaluation took, apart from what it found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rsoup.errors import ResultsError
from rsoup.evaluation.bench import Measured
from rsoup.files import read_json, write_json

TIMING = "timing.json"
SCHEMA = 1


def write_timing(out: Path, measured: Mapping[str, Measured]) -> None:
    """Note for each point the seconds its completions took, measures included, and the milliseconds per token."""
    points = {}
    for name, own in measured.items():
        tokens = sum(len(completion.tokens) for completion in own.completions)
        points[name] = {"seconds": own.seconds, "tokens": tokens, "ms_per_token": round(1e3 * own.seconds / tokens, 3)}
    write_json(out / TIMING, {"schema": SCHEMA, "points": points})


def read_timing(out: Path) -> dict[str, float]:
    """Return the milliseconds per token of each point; nothing where they are not known."""
    try:
        content = read_json(out / TIMING, schema=SCHEMA, what="a timing file", error=ResultsError)
        return {name: float(own["ms_per_token"]) for name, own in content["points"].items()}
    except (ResultsError, KeyError, TypeError, ValueError):
        return {}
