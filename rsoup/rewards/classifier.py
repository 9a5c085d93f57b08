"""Any sequence classifier as a reward, with its own tokenizer and its own way to read a post and a completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsoup.recipe import RewardSection
from rsoup.rewards.heads import parse_format
from rsoup.rewards.loading import load_resident
from rsoup.rewards.reading import PROBES, choose_reading
from rsoup.rewards.samples import Sample


@dataclass(frozen=True)
class Read:
    """What a classifier reads of a post and a completion, and what it makes of it.

    ``way`` says how it reads, ``texts`` are the text or the two that were joined, ``segments`` those of the tokens
    (None: all the same), ``cut`` the number of tokens that were left out (of what: ``left_out``), ``limit`` the most
    that it reads.
    """

    way: str
    texts: tuple[str, ...]
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    segments: tuple[int, ...] | None
    cut: int
    left_out: str
    limit: int
    logits: dict[str, float]


class Classifier:
    """The raw logit of a label, or the difference of two, for what the model reads of a post and a completion."""

    def __init__(self, name: str, section: RewardSection) -> None:
        what = f"The reward {name}: {section.model}"
        self._resident = load_resident(what, section)
        self._limit = self._resident.limit(section.max_tokens)
        self._reading = choose_reading(what, section, self._resident.tokenizer, self._resident.config, self._limit)
        self._resident.settle(self._reading.encode(PROBES))
        self._signs = parse_format(name, section.format or "0", self._resident.described)
        self._batch_size = section.batch_size

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the model's logits."""
        return self._resident.described.heads

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the raw score of each completion, float64 (n,)."""
        if not samples:
            return np.empty(0)
        outputs = self._resident.outputs(self._reading.encode(samples), self._batch_size)
        scores: np.ndarray = np.sum([sign * outputs[:, column] for column, sign in self._signs], axis=0)
        return scores

    def read(self, sample: Sample) -> Read:
        """Return what the model reads of one completion, and all its outputs."""
        row = self._reading.encode([sample])[0]
        values = self._resident.outputs([row], 1)[0]
        return Read(
            way=self._reading.told,
            texts=row.texts,
            ids=row.ids,
            tokens=tuple(self._resident.tokenizer.convert_ids_to_tokens(list(row.ids))),
            segments=row.segments if row.segments and any(row.segments) else None,
            cut=row.cut,
            left_out=row.left_out,
            limit=self._limit,
            logits=dict(zip(self._resident.described.names, map(float, values), strict=True)),
        )
