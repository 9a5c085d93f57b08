"""The bootstrap: paired, unbiased in its spread, and right about as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from rsoup.pareto.bootstrap import (
    degrees_of_each,
    degrees_of_freedom,
    draw_means,
    excess,
    interval,
    resampling_weights,
    simultaneous_reach,
    standard_error,
)
from rsoup.pareto.indicators import hypervolume


def test_equal_points_stay_equal_in_every_draw():
    one = np.random.default_rng(0).normal(size=(2, 30, 1, 2))
    draws = draw_means(np.concatenate([one, one], axis=2), 50, seed=1)
    assert (draws[:, 0] == draws[:, 1]).all()


def test_a_shift_between_points_is_certain():
    one = np.random.default_rng(0).normal(size=(1, 30, 1, 1))
    draws = draw_means(np.concatenate([one, one + 0.5], axis=2), 50, seed=1)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.5)


def test_draws_are_the_same_for_the_same_seed():
    samples = np.random.default_rng(0).normal(size=(1, 20, 3, 2))
    assert (draw_means(samples, 20, seed=3) == draw_means(samples, 20, seed=3)).all()
    assert (draw_means(samples, 20, seed=3) != draw_means(samples, 20, seed=4)).any()


@pytest.mark.parametrize("prompts", [2, 5, 60])
def test_the_spread_of_draws_is_the_standard_error(prompts):
    samples = np.random.default_rng(0).normal(size=(1, prompts, 1, 1))
    draws = draw_means(samples, 20_000, seed=0)
    expected = samples.std(ddof=1) / np.sqrt(prompts)
    assert draws.std() == pytest.approx(expected, rel=0.03)
    assert standard_error(samples)[0, 0] == pytest.approx(expected)


def test_weights_of_a_draw_sum_to_one():
    weights = resampling_weights(7, 100, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def test_pooled_seeds_count_seeds_and_prompts_once():
    # only seeds differ: the error is that of three means; only prompts differ: that of four
    seeds = np.array([1.0, 2.0, 4.0])[:, None, None, None] * np.ones((3, 4, 1, 1))
    prompts = np.array([1.0, 2.0, 4.0, 5.0])[None, :, None, None] * np.ones((3, 4, 1, 1))
    assert standard_error(seeds)[0, 0] == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert standard_error(prompts)[0, 0] == pytest.approx(np.std([1, 2, 4, 5], ddof=1) / 2)
    assert degrees_of_freedom(seeds) == pytest.approx(2)
    assert degrees_of_freedom(prompts) == pytest.approx(3)


def test_constant_scores_have_an_interval_of_no_width():
    samples = np.full((1, 10, 1, 1), 0.25)
    draws = draw_means(samples, 100, seed=0)
    np.testing.assert_allclose(interval(draws, samples.mean(axis=(0, 1)), degrees_of_freedom(samples)), 0.25)


@pytest.mark.parametrize(("seeds", "prompts"), [(2, 3), (2, 40), (5, 20)])
def test_resampling_both_levels_is_too_wide_by_root_three_at_most(seeds, prompts):
    """Of scores that vary by the interaction alone, which a draw of both levels counts three times."""
    samples = np.random.default_rng(0).normal(size=(seeds, prompts, 200, 1))
    samples = samples - samples.mean(axis=0) - samples.mean(axis=1, keepdims=True) + samples.mean(axis=(0, 1))
    found = excess(samples)
    assert ((found >= 1) & (found <= np.sqrt(3) + 1e-9)).all()
    assert (standard_error(samples) > 0).all()


def test_few_prompts_widen_the_interval():
    draws = np.random.default_rng(0).normal(size=(20_000, 1))
    widths = [float(np.ptp(interval(draws, np.zeros(1), freedom), axis=0)[0]) for freedom in (4, 400)]
    # twice Student's and twice the normal quantile
    assert widths == [pytest.approx(2 * 2.776, rel=0.05), pytest.approx(2 * 1.966, rel=0.05)]


def test_simultaneous_reach_covers_all_figures_at_once():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(20_000, 10))
    for prompts in (2000, 20):
        samples = generator.normal(size=(1, prompts, 10))
        own = samples.mean(axis=(0, 1)) + draws * standard_error(samples)
        tail = (1 - 0.95 ** (1 / 10)) / 2  # of the largest of ten independent figures
        reach = simultaneous_reach(own, samples.mean(axis=(0, 1)), samples)
        assert reach == pytest.approx(-stdtrit(prompts - 1, tail), rel=0.03)
    few = generator.normal(size=(1, 8, 10))
    assert simultaneous_reach(draws, np.zeros(10), few) == pytest.approx(-stdtrit(7, 0.025 / 10))
    assert simultaneous_reach(draws, np.zeros(10), np.ones((1, 8, 10))) == 0.0
    seeds_alone = np.repeat(generator.normal(size=(3, 1, 10)), 20, axis=1)
    assert simultaneous_reach(draws, np.zeros(10), seeds_alone) == pytest.approx(-stdtrit(2, 0.025 / 10), rel=0.05)


@pytest.mark.parametrize(("seeds", "prompts"), [(3, 1), (5, 1), (1, 8), (1, 50), (2, 50), (3, 50)])
def test_one_of_many_figures_lies_beyond_the_reach_by_chance_in_few_trials(seeds, prompts):
    """Of 20 figures whose truth is 0, with effects of the seed: about 5 trials in 100, and fewer with few seeds."""
    generator, beyond = np.random.default_rng(1), []
    for trial in range(200):
        samples = generator.normal(0, 0.25, (seeds, prompts, 20))
        samples += (seeds > 1) * generator.normal(0, 0.1, (seeds, 1, 20))
        means, stderr = samples.mean(axis=(0, 1)), standard_error(samples)
        drawn = draw_means(samples[..., None], 200, trial)[..., 0]
        reach = simultaneous_reach(drawn, means, samples)
        beyond.append((np.abs(means) > reach * stderr).any())
    assert np.mean(beyond) < 0.10


def test_a_model_that_no_seed_changes_has_the_degrees_of_freedom_of_its_prompts():
    generator = np.random.default_rng(0)
    samples = generator.normal(0, 1, (2, 30, 3, 2)) + generator.normal(0, 1, (2, 1, 3, 2))
    samples[1, :, 0] = samples[0, :, 0]
    found = degrees_of_each(samples)
    assert found[0].tolist() == [29, 29]
    assert (found[1:] == degrees_of_freedom(samples)).all()
    assert found[1, 0] < 10
    assert (degrees_of_each(samples[:1]) == 29).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_that_differ_much_are_covered_too(seeds):
    """Counts of two or three seeds cannot reach Student's quantile; the interval has to."""
    generator = np.random.default_rng(3)
    covered = []
    for trial in range(300):
        samples = generator.normal(0, 0.1, (seeds, 20, 4, 1)) + generator.normal(0, 0.3, (seeds, 1, 4, 1))
        low, high = interval(draw_means(samples, 200, trial), samples.mean(axis=(0, 1)), degrees_of_freedom(samples))
        covered.append((low <= 0) & (high >= 0))
    assert 0.92 <= np.mean(covered) <= 0.98


def noisy_circle(generator, points: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points on a quarter circle, and their samples: noise makes the best of many look better than they are."""
    angles = np.linspace(0, np.pi / 2, points)
    truth = 0.3 + 0.5 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return truth, truth + generator.normal(0, 0.25, (1, prompts, points, 2))


@pytest.mark.parametrize("points", [50, 200])
def test_volumes_of_many_noisy_points_lie_in_their_intervals_and_so_does_the_truth(points):
    generator, held = np.random.default_rng(3), []
    for trial in range(30):
        truth, samples = noisy_circle(generator, points, prompts=60)
        value = np.array(hypervolume(samples.mean(axis=(0, 1)), np.zeros(2)))
        drawn = np.array([hypervolume(scores, np.zeros(2)) for scores in draw_means(samples, 200, trial)])
        low, high = interval(drawn, value, 59)
        assert low < value < high
        held.append(low < hypervolume(truth, np.zeros(2)) < high)
    assert np.mean(held) > 0.85
