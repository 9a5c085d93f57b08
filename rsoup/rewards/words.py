"""Rewards computed by counting words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsoup.errors import MissingPackageError, RewardError
from rsoup.installing import pip_line
from rsoup.recipe import RewardSection
from rsoup.rewards.samples import Sample

WORD = re.compile(r"\w+(?:['’]\w+)*")
SENTENCE_END = re.compile(r"[.!?。！？]+")


class Brevity:
    """Minus the number of words."""

    def __init__(self, section: RewardSection) -> None:
        pass

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return minus the number of words of each completion."""
        return [-float(len(sample.completion.split())) for sample in samples]


class Length:
    """Minus the distance of the number of words from a target."""

    def __init__(self, section: RewardSection) -> None:
        assert section.target is not None
        self._target = section.target

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return minus the distance of each completion."""
        return [-float(abs(len(sample.completion.split()) - self._target)) for sample in samples]


class Variety:
    """Minus the share of word triples that repeat an earlier one."""

    def __init__(self, section: RewardSection) -> None:
        pass

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return the score of each completion; one without three words repeats nothing."""
        return [_repeated(sample.completion.lower().split()) for sample in samples]


def _repeated(words: list[str]) -> float:
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) / len(triples) - 1 if triples else 0.0


class Pattern:
    """Whether a regular expression is found."""

    def __init__(self, section: RewardSection) -> None:
        if section.pattern is None:
            raise RewardError(
                "The reward regex has no pattern.", "Set one: rewards: {name: {use: regex, pattern: '...'}}."
            )
        self._pattern = re.compile(section.pattern)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return 1 for each completion with a match, else 0."""
        return [float(self._pattern.search(sample.completion) is not None) for sample in samples]


class ReadingEase:
    """Reading ease of English text (Flesch, 1948): 206.835 - 1.015 words/sentences - 84.6 syllables/words."""

    def __init__(self, section: RewardSection) -> None:
        try:
            from pyphen import Pyphen
        except ModuleNotFoundError as problem:
            command = pip_line("rewards")
            raise MissingPackageError("pyphen", "The reward readable", command) from problem
        self._hyphenation = Pyphen(lang="en_US", left=1, right=1)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return the reading ease of each completion; one without words gets 0."""
        return [self._ease(sample.completion) for sample in samples]

    def _ease(self, text: str) -> float:
        words = WORD.findall(text)
        if not words:
            return 0.0
        sentences = sum(WORD.search(part) is not None for part in SENTENCE_END.split(text))
        syllables = sum(len(self._hyphenation.positions(word)) + 1 for word in words)
        return 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)
