"""The part that each document has in a metric: numbers whose mean is the metric, and whose spread is its uncertainty.

Of a mean they are the scores themselves. Of perplexities and bits per byte they are the metric plus n times what a
document adds to it in the limit (the infinitesimal jackknife, Efron 1982), and of what is anything else the jackknife's
pseudo-values (Tukey 1958), moved so that their mean is the metric. Intervals are then paired over the documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api import metrics as known
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Aggregation = Callable[[Sequence[Any]], float]

MEANS = (known.mean, known.nanmean, np.mean, np.nanmean)
LONG = (known.bleu, known.chrf, known.chrfpp, known.ter)
"""Aggregations that take a while: n of them over n documents are worth it for few."""
MOST, MOST_OF_LONG = 5000, 200


def parts_of(items: Sequence[Any], value: float, aggregation: Aggregation) -> Floats | None:
    """Return the parts (n,) of the n documents in a metric, None where they cannot be told."""
    if len(items) < 2:
        return None
    try:
        found = _parts(items, value, aggregation)
    except Exception:  # an aggregation of anybody's may refuse some part of the documents
        return None
    if found is None or not np.isfinite(found).all():
        return None
    if not math.isclose(float(found.mean()), value, rel_tol=1e-6, abs_tol=1e-9):
        return None
    return found


def _parts(items: Sequence[Any], value: float, aggregation: Aggregation) -> Floats | None:
    if aggregation in MEANS:
        return np.array([float(item) for item in items])
    if aggregation is known.perplexity:  # exp of minus the mean
        values = np.array([float(item) for item in items])
        return np.asarray(value * (1 + values.mean() - values))
    if aggregation in (known.weighted_perplexity, known.bits_per_byte):  # of a ratio of sums
        tops, bottoms = np.array(items, dtype=np.float64).T
        shares = (tops - bottoms * (tops.sum() / bottoms.sum())) / bottoms.mean()
        return np.asarray(value - shares * (value if aggregation is known.weighted_perplexity else 1 / math.log(2)))
    if aggregation is known.median or len(items) > (MOST_OF_LONG if aggregation in LONG else MOST):
        return None
    count = len(items)
    without = np.array([float(aggregation([*items[:left], *items[left + 1 :]])) for left in range(count)])
    return np.asarray(value + (count - 1) * (without.mean() - without))
