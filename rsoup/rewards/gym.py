"""The scorers of reasoning-gym's tasks, each for its own rows."""

from __future__ import annotations

from collections.abc import Mapping

from rsoup.recipe import RewardSection
from rsoup.rewards.bounded import bounded
from rsoup.rewards.samples import Sample
from rsoup.rewards.verifiable import Judged, answer_of
from rsoup.tasks.gym import library


class Gym(Judged):
    """What the task's own scorer says of the answer, mostly 0 to 1; it does not apply to rows of other tasks."""

    def __init__(self, section: RewardSection) -> None:
        self._known = library("The reward gym").factory.DATASETS
        self._verdict = bounded("rsoup.rewards.gym_verdicts:verdict")

    def _score(self, sample: Sample) -> float | None:
        metadata = sample.columns.get("metadata")
        name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
        if name is None or name not in self._known:
            return None
        return float(self._verdict(name, answer_of(sample), dict(sample.columns)))
