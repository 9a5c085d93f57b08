"""What has been measured so far, found again by its content: a folder per model with files of completions and scores.

Sweeps may share the folder, one after another or at the same time: a file is whole or absent, none is ever changed by
two at once, and a model that another sweep is working on is waited for instead of being measured twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rsoup.errors import ResultsError
from rsoup.evaluation.answers import Answers
from rsoup.evaluation.records import Record
from rsoup.files import read_json, sha256_json, write_json
from rsoup.harness.outcome import Outcome
from rsoup.locks import locked

SCHEMA = 2
FOLDER = "points"


class Completion(Record):
    """A completion: its text, its tokens, whether a stop token ended it, and how likely two models find it, in nats.

    ``kl`` is the divergence from the start, ``surprise`` minus the base's log-probability; None where not measured.
    ``unfinished`` means that it is read as empty because its thought has no end.
    """

    text: str
    tokens: tuple[int, ...]
    ended_by_eos: bool
    kl: float | None = None
    surprise: float | None = None
    unfinished: bool = False


_COMPLETIONS = TypeAdapter(dict[str, list[Completion]])
_SCORES = TypeAdapter(dict[str, float | None])
_OUTCOME = TypeAdapter(Outcome)
_ROWS = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Kept:
    """What is kept of one model: a folder of files keyed by the content of prompts and texts."""

    folder: Path

    def completions(self) -> dict[str, list[Completion]]:
        """Return the completions by the key of their prompt."""
        rows: dict[str, list[Completion]] = self._read("completions", _COMPLETIONS)
        return rows

    def keep_completions(self, rows: Mapping[str, list[Completion]], seconds: float) -> None:
        """Keep completions, and how long they took."""
        content = {key: [own.model_dump() for own in row] for key, row in rows.items()}
        self._write("completions", content, seconds=round(seconds, 3))

    def seconds(self) -> float:
        """Return how long the completions took."""
        try:
            return float(read_json(self._path("completions"), schema=SCHEMA, what="", error=ResultsError)["seconds"])
        except (ResultsError, KeyError, TypeError, ValueError):
            return 0.0

    def scores(self, reward: str) -> dict[str, float | None]:
        """Return the scores of a reward (its identity) by the key of what it read, None where it does not apply."""
        rows: dict[str, float | None] = self._read(f"scores-{reward[:24]}", _SCORES)
        return rows

    def keep_scores(self, reward: str, rows: Mapping[str, float | None]) -> None:
        """Keep the scores of a reward."""
        self._write(f"scores-{reward[:24]}", rows)

    def outcome(self, benchmark: str) -> Outcome | None:
        """Return what a benchmark (its identity) said, None if it was not measured."""
        try:
            found: Outcome = _OUTCOME.validate_python(self._read(f"benchmark-{benchmark[:24]}", _ROWS), strict=False)
        except ValidationError:
            return None
        return found

    def keep_outcome(self, benchmark: str, outcome: Outcome) -> None:
        """Keep what a benchmark said."""
        self._write(f"benchmark-{benchmark[:24]}", _OUTCOME.dump_python(outcome, mode="json"))

    def answers(self, version: str) -> Answers:
        """Return what was answered to requests of a version of lm-eval."""
        return Answers(self._path(f"answers-{version}"))

    @contextmanager
    def held(self, *, wait: bool) -> Iterator[bool]:
        """Keep other sweeps from this model within the block; yield False if another has it and we do not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock", wait=wait) as mine:
            yield mine

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str, kind: TypeAdapter[Any]) -> Any:
        """Return the rows of a file; one that is not there or not whole has none."""
        if not self._path(name).is_file():
            return {}
        try:
            content = read_json(self._path(name), schema=SCHEMA, what="a measured point", error=ResultsError)
            if content.get("sha256", sha256_json(content["rows"])) != sha256_json(content["rows"]):
                return {}
            return kind.validate_python(content["rows"], strict=False)
        except (ResultsError, KeyError, ValidationError):
            return {}

    def _write(self, name: str, rows: Mapping[str, Any], **facts: float) -> None:
        content = {"schema": SCHEMA, **facts, "sha256": sha256_json(rows), "rows": dict(rows)}
        write_json(self._path(name), content)


def kept(folder: Path, key: str) -> Kept:
    """Return what a folder keeps of the model of that key."""
    return Kept(folder / FOLDER / key)
