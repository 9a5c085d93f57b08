"""timing.json: what an evaluation took, apart from what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsoup.errors import ResultsError
from rsoup.files import read_json, write_json

if TYPE_CHECKING:
    from rsoup.evaluation.bench import Measured
    from rsoup.harness.outcome import Outcome
    from rsoup.rewards.judges.usage import Usage

TIMING = "timing.json"
SCHEMA = 1


def write_timing(
    out: Path, measured: Mapping[str, Measured], trainings: Mapping[str, float], judges: Mapping[str, Usage]
) -> None:
    """Note what each point's completions took, measures included, and the seconds of the adapters' ``trainings``.

    Benchmarks have seconds of their own, by point and name. What judges at endpoints were asked is added to what they
    had been asked for this folder before.
    """
    points = {}
    for name, own in measured.items():
        tokens = sum(len(completion.tokens) for completion in own.completions)
        points[name] = {"seconds": own.seconds, "tokens": tokens, "ms_per_token": round(1e3 * own.seconds / tokens, 3)}
    asked = {**_judges(out)}
    for name, usage in judges.items():
        asked[name] = {key: asked.get(name, {}).get(key, 0) + count for key, count in vars(usage).items()}
    content: dict[str, Any] = {"schema": SCHEMA, "points": points, "trainings": dict(trainings)}
    benchmarks = {name: seconds_of(own.outcomes) for name, own in measured.items() if own.outcomes}
    content |= {name: part for name, part in (("benchmarks", benchmarks), ("judges", asked)) if part}
    write_json(out / TIMING, content)


def seconds_of(outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Return what each benchmark took."""
    return {name: own.seconds for name, own in outcomes.items()}


def _judges(out: Path) -> dict[str, dict[str, int]]:
    """Return what judges have been asked so far: calls, answers that were kept, tokens."""
    try:
        content = read_json(out / TIMING, schema=SCHEMA, what="a timing file", error=ResultsError)
        return {name: {key: int(count) for key, count in own.items()} for name, own in content["judges"].items()}
    except (ResultsError, KeyError, TypeError, ValueError, AttributeError):
        return {}


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
