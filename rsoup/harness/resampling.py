"""The bootstrap that lm-eval takes standard errors from, in this process and with its very random numbers.

lm-eval forks a pool of processes for it, which would inherit a model, its threads and our handling of signals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from lm_eval.api import metrics as known

CHUNK = 1000
"""Draws that lm-eval takes from one seed."""


def bootstrap_stderr(aggregation: Callable[[Sequence[Any]], float], items: Sequence[Any], iters: int) -> float:
    """Return the standard deviation of a metric over resamples of the items: what lm-eval returns, to rounding."""
    if aggregation is known.perplexity:
        return _of_perplexity(np.array(items, dtype=np.float64), iters)
    found: float = known.sample_stddev(known._bootstrap_internal_no_mp(aggregation, items, iters))
    return found


def _of_perplexity(values: np.ndarray, iters: int) -> float:
    """Return the same for exp of minus a mean, all draws of a seed at once: numpy has Python's generator too."""
    chunk, draws = min(CHUNK, iters), []
    for seed in range(iters // chunk):
        places = np.random.RandomState([seed]).random_sample((chunk, len(values))) * len(values)
        draws.append(np.exp(-values[places.astype(np.intp)].mean(axis=1)))
    return float(np.concatenate(draws).std(ddof=1))


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let lm-eval resample as above within the block."""
    own = known.bootstrap_stderr
    known.bootstrap_stderr = bootstrap_stderr
    try:
        yield
    finally:
        known.bootstrap_stderr = own
