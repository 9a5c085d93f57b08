"""Prompts that a reward does not apply to leave its figures to the others."""

from __future__ import annotations

import numpy as np
import pytest

from rsoup.pareto.bootstrap import draw_means, interval, standard_error
from rsoup.pareto.missing import complete_prompts, filled


def drawn(seeds: int, prompts: int, missing: slice, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=(seeds, prompts, 3, 2))
    samples[:, missing, :, 1] = np.nan
    return samples


def test_a_prompt_counts_for_a_reward_if_every_point_and_seed_has_its_score():
    samples = np.zeros((2, 4, 3, 2))
    samples[1, 2, 0, 1] = np.nan
    assert complete_prompts(samples).tolist() == [[True, True], [True, True], [True, False], [True, True]]


def test_nothing_changes_where_nothing_is_missing():
    samples = drawn(1, 20, slice(0, 0))
    assert filled(samples) is samples


@pytest.mark.parametrize("seeds", [1, 3])
def test_means_and_errors_are_those_of_the_prompts_that_count(seeds):
    """With 300 of 400 prompts Student's quantiles hardly differ."""
    samples = drawn(seeds, 400, slice(300, None))
    samples[0, 5, 1, 1] = np.nan  # at one point of one seed: the prompt counts for none
    known = np.delete(samples[:, :300], 5, axis=1)
    result = filled(samples)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[..., 0], samples[..., 0])
    np.testing.assert_allclose(result.mean(axis=1)[..., 1], known.mean(axis=1)[..., 1])
    np.testing.assert_allclose(standard_error(result)[:, 1], standard_error(known)[:, 1], rtol=2e-3)
    gaps = [standard_error(own[..., 1:, :] - own[..., :1, :])[:, 1] for own in (result, known)]
    np.testing.assert_allclose(*gaps, rtol=2e-3)


@pytest.mark.parametrize("count", [4, 15, 60])
def test_intervals_are_as_wide_as_those_of_the_prompts_that_count_alone(count):
    samples = drawn(1, 120, slice(count, None))
    widths = []
    for own in (filled(samples), samples[:, :count]):
        draws = draw_means(own, 4000, 0)[..., 1]
        low, high = interval(draws, own.mean(axis=(0, 1))[:, 1], own.shape[1] - 1)
        widths.append(high - low)
    np.testing.assert_allclose(*widths, rtol=0.12)
