"""The scorers of reasoning-gym's tasks, each for its own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.recipe import RewardSection
from rsoup.rewards.samples import Sample
from rsoup.rewards.verifiable import answer_of
from rsoup.tasks.gym import library


class Gym:
    """What the task's own scorer says of the answer; a row of another task is none that it applies to."""

    def __init__(self, section: RewardSection) -> None:
        self._library = library("The reward gym")

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return the score of each completion, mostly 0 to 1."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float | None:
        metadata = sample.columns.get("metadata")
        name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
        if name is None or name not in self._library.factory.DATASETS:
            return None
        scorer = self._library.get_score_answer_fn(name)
        answer = answer_of(sample)
        inner = self._library.utils.extract_answer(answer)
        return _judge(scorer, answer if inner is None else inner, dict(sample.columns))


def _judge(scorer: Any, answer: str, entry: dict[str, Any]) -> float:
    """Score an answer; one that the scorer fails on is wrong, if it does not fail on the right one as well."""
    try:
        return float(scorer(answer, entry=entry))
    except Exception:
        scorer(entry["answer"], entry=entry)
        return 0.0
