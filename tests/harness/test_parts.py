"""The part of each document in a metric: their mean is the metric, their spread its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from lm_eval.api import metrics

from rsoup.harness.parts import parts_of

PAIRS = [(-3.0, 4.0), (-9.0, 5.0), (-2.0, 6.0), (-8.0, 3.0), (-5.0, 7.0), (-6.5, 2.0)]
LIKELIHOODS = [-1.0, -2.5, -0.5, -4.0, -3.0, -1.5]


def slopes(items: Sequence[Any], aggregation: Callable[[Sequence[Any]], float]) -> np.ndarray:
    """Return by how much a metric moves when a document counts a little more, times the documents."""
    many, more = 2000, 20
    whole = [item for item in items for _ in range(many)]
    value = aggregation(whole)
    return np.array([(aggregation([*whole, *[item] * more]) - value) * len(whole) / more for item in items])


@pytest.mark.parametrize(
    ("items", "aggregation"),
    [
        ([1.0, 0.0, 0.0, 1.0, 1.0], metrics.mean),
        (LIKELIHOODS, metrics.perplexity),
        (PAIRS, metrics.weighted_perplexity),
        (PAIRS, metrics.bits_per_byte),
    ],
)
def test_a_part_is_what_a_document_adds_to_the_metric(
    items: list[Any], aggregation: Callable[[Sequence[Any]], float]
) -> None:
    value = aggregation(items)
    parts = parts_of(items, value, aggregation)
    assert parts is not None
    assert parts.mean() == pytest.approx(value)
    np.testing.assert_allclose(parts - value, slopes(items, aggregation), rtol=0.02, atol=0.01)


def test_the_parts_of_a_mean_are_the_scores() -> None:
    parts = parts_of([True, False, 0.25], 5 / 12, metrics.mean)
    assert parts is not None
    assert parts.tolist() == [1.0, 0.0, 0.25]


def test_the_parts_of_a_perplexity_worked_out_by_hand() -> None:
    """exp(2) of -1 and -3: at the mean both have it, and each is moved by exp(2) times its distance."""
    value = math.exp(2)
    parts = parts_of([-1.0, -3.0], value, metrics.perplexity)
    assert parts is not None
    assert parts.tolist() == pytest.approx([0.0, 2 * value])


def test_what_is_no_mean_has_the_jackknifes_pseudo_values() -> None:
    """Of a product of means, 2 * 5 here: without each document it is 2.5 * 4 , ... (n = 3)."""

    def product(pairs: Sequence[tuple[float, float]]) -> float:
        return float(np.mean([a for a, _ in pairs]) * np.mean([b for _, b in pairs]))

    items = [(1.0, 7.0), (2.0, 5.0), (3.0, 3.0)]
    without = np.array([2.5 * 4, 2.0 * 5, 1.5 * 6])
    parts = parts_of(items, 10.0, product)
    assert parts is not None
    np.testing.assert_allclose(parts, 10 + 2 * (without.mean() - without))


def test_the_spread_of_parts_is_the_standard_error_of_a_bootstrap() -> None:
    """Of a correlation, which is no mean."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=120)
    pairs = np.stack([first, first + generator.normal(size=120)], axis=1)

    def correlation(items: Sequence[Any]) -> float:
        return float(np.corrcoef(np.array(items).T)[0, 1])

    parts = parts_of(list(pairs), correlation(pairs), correlation)
    assert parts is not None
    draws = [correlation(pairs[generator.integers(0, 120, 120)]) for _ in range(1000)]
    assert parts.std(ddof=1) / math.sqrt(120) == pytest.approx(np.std(draws), rel=0.15)


@pytest.mark.parametrize(
    ("items", "value", "aggregation"),
    [
        ([1.0], 1.0, metrics.mean),
        ([1.0, 2.0, 9.0], 2.0, metrics.median),
        ([1.0, math.nan], 1.0, metrics.nanmean),
        ([1.0, 0.0], 0.7, metrics.mean),
        (["a", "b"], 1.0, lambda items: 1 / (len(items) - 1)),
    ],
)
def test_parts_that_cannot_be_told_are_none(
    items: list[Any], value: float, aggregation: Callable[[Sequence[Any]], float]
) -> None:
    """A single document, what has no slope, what is no number, another value than the items', what fails."""
    assert parts_of(items, value, aggregation) is None
