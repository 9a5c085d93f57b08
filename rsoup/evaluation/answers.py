"""What a model has answered to lm-eval's requests, found again by their content.

More documents, another metric or a command that was killed ask again only what is not there. Answers to requests that
are to be sampled are not kept: each is another one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError
from rsoup.files import read_json, sha256_json, write_json

SCHEMA = 1
SECONDS = 20.0
"""Between two writings of the file, whatever is answered meanwhile."""


class Answers:
    """The answers of one model, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = _read(path)
        self._new: dict[str, Any] = {}
        self._there, self._written = len(self._kept), time.monotonic()

    def find(self, key: str) -> Any:
        """Return an answer, None if there is none."""
        return self._kept.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Note an answer; it counts from the next ``keep`` on."""
        self._new[key] = answer

    def keep(self) -> None:
        """Count what was noted as answered, and write all now and then.

        Called between two batches, a command that is killed and goes on makes the batches that it would have made.
        """
        self._kept |= self._new
        self._new = {}
        if time.monotonic() - self._written > SECONDS:
            self.write()

    def write(self) -> None:
        """Write what counts as answered, if that is more than the file has."""
        if len(self._kept) > self._there:
            write_json(self._path, {"schema": SCHEMA, "rows": self._kept})
        self._there, self._written = len(self._kept), time.monotonic()


def key_of(kind: str, arguments: Sequence[Any]) -> str | None:
    """Return what a request is found by, None for one that is to be sampled."""
    settings = next((own for own in arguments if isinstance(own, Mapping)), {})
    if settings.get("do_sample") or (settings.get("temperature") or 0) > 0:
        return None
    return sha256_json([kind, *arguments])[:32]


def _read(path: Path) -> dict[str, Any]:
    """Return the answers of a file; one that is not there or not whole has none."""
    if not path.is_file():
        return {}
    try:
        rows = read_json(path, schema=SCHEMA, what="a file of answers", error=ResultsError).get("rows")
    except ResultsError:
        return {}
    return dict(rows) if isinstance(rows, dict) else {}
