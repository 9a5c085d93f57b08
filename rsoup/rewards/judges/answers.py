"""Answers of judges at endpoints, kept by content: no question is paid for twice on a machine.

A file for each answer, whole or absent, so that any number of processes share the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsoup.errors import first_line
from rsoup.files import sha256_json, write_json
from rsoup.models.bundled import cache_folder
from rsoup.recipe.judge import JudgeSection
from rsoup.rewards.judges import WORDING

SCHEMA = 1


@dataclass
class Answers:
    """The answers to the questions of one judge; ``say`` is told once if some are ``lost``, which cannot be kept."""

    judge: JudgeSection
    say: Callable[[str], None]
    folder: Path = field(default_factory=lambda: cache_folder() / "judge")
    lost: bool = False

    def key(self, question: str) -> str:
        """Return a hash of what decides an answer: endpoint, model, sampling and the whole text that is asked."""
        judge = self.judge
        sampling: dict[str, Any] = {
            "temperature": judge.temperature,
            "max_tokens": judge.max_tokens,
            "options": judge.options,
        }
        return sha256_json([SCHEMA, WORDING, judge.base_url, judge.model, sampling, question])

    def get(self, key: str) -> str | None:
        """Return a kept answer; one that is not there, or not whole, is None."""
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            answer = content["answer"] if content["schema"] == SCHEMA else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def keep(self, key: str, answer: str) -> None:
        """Keep an answer; where that fails, as on a full disk, the run goes on without."""
        try:
            write_json(self._path(key), {"schema": SCHEMA, "model": self.judge.model, "answer": answer})
        except OSError as problem:
            if not self.lost:
                self.lost = True
                reason = problem.strerror or first_line(problem)
                self.say(
                    f"warning: answers of the judge {self.judge.model} cannot be kept in {self.folder} ({reason}): "
                    "asked again, they cost again."
                )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
