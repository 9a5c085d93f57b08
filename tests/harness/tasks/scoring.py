"""What the task ``words`` makes of an answer."""

from __future__ import annotations

from typing import Any


def different_words(document: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Return how many words of an answer differ, as a share of its words and the question's."""
    words = answers[0].split()
    return {"different": len(set(words)) / (1 + len(words) + len(document["question"].split()))}
