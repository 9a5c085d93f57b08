"""What a sweep has measured so far, a file per point, found again by its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError
from rsoup.files import read_json, write_json

SCHEMA = 1
FOLDER = "points"


@dataclass
class Measured:
    """The completions of one point, how long they are, and its scores by the identity of the reward."""

    completions: list[str]
    tokens: list[int]
    ended_by_eos: list[bool]
    seconds: float
    scores: dict[str, list[float]] = field(default_factory=dict)


def read_measured(folder: Path, key: str) -> Measured | None:
    """Return what is kept under a key, or None; a file that is not whole counts as none."""
    path = folder / FOLDER / f"{key}.json"
    if not path.is_file():
        return None
    try:
        content: Mapping[str, Any] = read_json(path, schema=SCHEMA, what="a measured point", error=ResultsError)
        return Measured(**{name: content[name] for name in Measured.__dataclass_fields__})
    except (ResultsError, KeyError):
        return None


def write_measured(folder: Path, key: str, measured: Measured) -> None:
    """Keep what was measured under a key."""
    write_json(folder / FOLDER / f"{key}.json", {"schema": SCHEMA, **vars(measured)})
