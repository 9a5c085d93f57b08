"""What a benchmark says of a model: its metrics, and every document's part in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A metric over ``n`` documents with lm-eval's standard error, None where it gives none."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Document:
    """A document: its question, what the model answered, and by label its part in each metric (see ``parts``)."""

    id: str
    prompt: str
    answer: str
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """Metrics by labels such as ``gsm8k.exact_match,strict-match``, the documents in order, and what it took."""

    figures: Mapping[str, Figure]
    documents: tuple[Document, ...]
    seconds: float = 0.0
