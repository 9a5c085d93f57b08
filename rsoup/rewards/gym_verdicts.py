"""What the scorers of reasoning-gym's tasks say of an answer."""

from __future__ import annotations

from typing import Any

from reasoning_gym import get_score_answer_fn
from reasoning_gym.utils import extract_answer


def verdict(task: str, answer: str, entry: dict[str, Any]) -> float:
    """Score an answer; one that the scorer fails on is wrong, if it does not fail on the right one as well."""
    scorer = get_score_answer_fn(task)
    inner = extract_answer(answer)
    try:
        return float(scorer(answer if inner is None else inner, entry=entry))
    except Exception:
        scorer(entry["answer"], entry=entry)
        return 0.0
