"""Standard errors by resampling are lm-eval's own, without its processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from lm_eval.api import metrics

from rsoup.harness.quiet import quiet
from rsoup.harness.resampling import bootstrap_stderr, in_this_process

LIKELIHOODS = [float(own) for own in np.random.default_rng(0).normal(-3, 1, 17)]


@pytest.mark.parametrize(
    ("items", "metric", "iters"), [(LIKELIHOODS, "perplexity", 3000), (LIKELIHOODS, "median", 2000)]
)
def test_it_is_what_lm_eval_finds(items: Sequence[Any], metric: str, iters: int) -> None:
    aggregation = getattr(metrics, metric)
    with quiet():
        expected = metrics.bootstrap_stderr(aggregation, items, iters=iters)
    assert bootstrap_stderr(aggregation, items, iters) == pytest.approx(expected, rel=1e-9)


def test_lm_eval_resamples_so_within_the_block_alone() -> None:
    own = metrics.bootstrap_stderr
    with in_this_process():
        assert metrics.bootstrap_stderr is bootstrap_stderr
        assert metrics.stderr_for_metric(metrics.perplexity, 2000)(LIKELIHOODS) == pytest.approx(
            bootstrap_stderr(metrics.perplexity, LIKELIHOODS, 2000)
        )
    assert metrics.bootstrap_stderr is own
