"""What is maximised, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.recipe import TrainingSection
from rsoup.training.scores import Running, objective_scores


def training(**settings: object) -> TrainingSection:
    return TrainingSection.model_validate({"completions_per_prompt": 2, **settings})


def test_raw_scores_are_summed_by_weight_and_divided_by_the_sum_of_weights() -> None:
    """0.4 * 1 + 1.2 * 3 = 4.0, over 1.6."""
    scores = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 0.0])}
    found = objective_scores(scores, {"a": 0.4, "b": 1.2}, {}, training())
    assert found == pytest.approx([2.5, 0.5])


def test_running_scores_are_shifted_and_scaled_by_what_was_seen() -> None:
    """1, 3, 5, 7 have the mean 4 and the deviation sqrt(20 / 3)."""
    seen = Running().with_batch(np.array([1.0, 3.0])).with_batch(np.array([5.0, 7.0]))
    assert (seen.count, seen.mean, seen.spread) == (4, 4.0, 20.0)
    found = objective_scores({"a": np.array([5.0, 7.0])}, {"a": 2.0}, {"a": seen}, training(score_scaling="running"))
    assert found == pytest.approx(np.array([1.0, 3.0]) / np.sqrt(20 / 3), rel=1e-6)


def test_scaled_scores_of_a_reward_a_thousand_times_larger_weigh_the_same() -> None:
    scores = {"a": np.array([1.0, 2.0, 4.0, 3.0]), "b": np.array([4000.0, 1000.0, 2000.0, 9000.0])}
    small = {"a": scores["a"], "b": scores["b"] / 1000}
    for scaling in ("running", "normalize_then_sum"):
        found = [
            objective_scores(
                given,
                {"a": 1.0, "b": 1.0},
                {k: Running().with_batch(v) for k, v in given.items()},
                training(score_scaling=scaling),
            )
            for given in (scores, small)
        ]
        assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_scores_normalised_within_a_group_have_mean_zero_and_deviation_one_there() -> None:
    found = objective_scores(
        {"a": np.array([1.0, 3.0, 10.0, 10.0])}, {"a": 1.0}, {}, training(score_scaling="normalize_then_sum")
    )
    assert found == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0], rel=1e-3)


def test_clipping_comes_after_scaling_and_before_weighting() -> None:
    seen = Running(count=3, mean=10.0, spread=8.0)  # a deviation of 2
    scores = {"a": np.array([4.0, 20.0]), "b": np.array([0.5, -9.0])}
    raw = objective_scores(scores, {"a": 1.0, "b": 1.0}, {}, training(score_clip=1.0))
    assert raw == pytest.approx([0.75, 0.0])
    scaled = objective_scores(
        {"a": scores["a"]}, {"a": 1.0}, {"a": seen}, training(score_clip=4.0, score_scaling="running")
    )
    assert scaled == pytest.approx([-3.0, 4.0])


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), min_size=1, max_size=6))
def test_statistics_do_not_depend_on_how_scores_arrive(batches: list[list[float]]) -> None:
    running = Running()
    for batch in batches:
        running = running.with_batch(np.array(batch))
    everything = np.concatenate([np.array(batch) for batch in batches])
    assert running.count == len(everything)
    assert running.mean == pytest.approx(everything.mean(), abs=1e-9)
    expected = everything.std(ddof=1) if len(everything) > 1 else 0.0
    assert running.deviation == pytest.approx(expected, rel=1e-6, abs=1e-6)


NONE = np.nan
"""A score of a reward that does not apply."""


def test_a_reward_that_does_not_apply_takes_no_part_in_the_weighted_mean() -> None:
    """Weights 1 and 3: both apply, (2 + 3 * 6) / 4; the first alone, 2; the second alone, 6; neither: no score."""
    scores = {"a": np.array([2.0, 2.0, NONE, NONE]), "b": np.array([6.0, NONE, 6.0, NONE])}
    found = objective_scores(scores, {"a": 1.0, "b": 3.0}, {}, training())
    np.testing.assert_allclose(found, [5.0, 2.0, 6.0, NONE])


def test_a_reward_without_weight_makes_no_score_where_it_alone_applies() -> None:
    scores = {"a": np.array([NONE, 2.0]), "b": np.array([6.0, 6.0])}
    np.testing.assert_allclose(objective_scores(scores, {"a": 1.0, "b": 0.0}, {}, training()), [NONE, 2.0])


def test_statistics_leave_out_what_does_not_apply() -> None:
    batches = [np.array([1.0, NONE, 3.0]), np.array([NONE, NONE]), np.array([5.0, 7.0, NONE])]
    seen = Running()
    for batch in batches:
        seen = seen.with_batch(batch)
    assert (seen.count, seen.mean, seen.spread) == (4, 4.0, 20.0)


def test_groups_are_normalised_over_what_applies() -> None:
    """2 and 4 have the mean 3 and the deviation sqrt 2; one score alone lies at its own mean."""
    section = TrainingSection(completions_per_prompt=3, score_scaling="normalize_then_sum")
    scores = {"a": np.array([2.0, NONE, 4.0, NONE, 9.0, NONE, NONE, NONE, NONE])}
    found = objective_scores(scores, {"a": 1.0}, {}, section)
    expected = [-np.sqrt(0.5), NONE, np.sqrt(0.5), NONE, 0.0, NONE, NONE, NONE, NONE]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
