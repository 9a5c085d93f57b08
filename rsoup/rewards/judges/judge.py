"""A judge as a scorer: questions about completions, their answers, and the scores these come to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from rsoup.recipe.judge import JudgeSection
from rsoup.rewards.judges.pace import Pace
from rsoup.rewards.judges.texts import Question, questions, score_of
from rsoup.rewards.samples import Sample


@dataclass(frozen=True)
class Judged:
    """What a judge reads of a completion, text by text, and what it answers to each."""

    texts: tuple[str, ...]
    answers: tuple[str, ...]


class Judge(ABC):
    """Scores completions by what a language model answers to questions about them."""

    def __init__(self, name: str, judge: JudgeSection) -> None:
        self.name, self.judge, self.pace = name, judge, Pace(name)

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return the score of each completion, None where the judge has nothing to compare it with."""
        asked = [questions(self.judge, self.fit(sample)) for sample in samples]
        values = iter(self.values([question for own in asked for question in own]))
        return [score_of(own, list(islice(values, len(own)))) for own in asked]

    def read(self, sample: Sample) -> Judged:
        """Return what the judge reads of one completion, and its answers."""
        asked = questions(self.judge, self.fit(sample))
        return Judged(tuple(question.text for question in asked), tuple(self.answers(asked)))

    def fit(self, sample: Sample) -> Sample:
        """Return what the judge can read of a sample."""
        return sample

    @abstractmethod
    def values(self, asked: Sequence[Question]) -> list[float]:
        """Return the number each answer gives."""

    @abstractmethod
    def answers(self, asked: Sequence[Question]) -> list[str]:
        """Return the answers to show."""

    def ready(self) -> None:
        """Raise RewardError if the judge cannot be asked."""
        return
