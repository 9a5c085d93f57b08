"""Rewards computed from words alone."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.errors import MissingPackageError
from rsoup.installing import pip_line
from rsoup.recipe import RewardSection
from rsoup.rewards.samples import Sample


class Sentiment:
    """VADER compound sentiment of the completion (Hutto and Gilbert, 2014), in [-1, 1]."""

    def __init__(self, section: RewardSection) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ModuleNotFoundError as problem:
            command = pip_line("quickstart")
            raise MissingPackageError("vaderSentiment", "The reward positive", command) from problem
        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return the compound score of each completion."""
        return [self._analyzer.polarity_scores(sample.completion)["compound"] for sample in samples]
