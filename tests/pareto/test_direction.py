"""Turning scores into gains and back."""

from __future__ import annotations

import numpy as np

from rsoup.pareto.direction import signs_of, turned, turned_interval
from rsoup.pareto.dominance import non_dominated
from rsoup.pareto.indicators import hypervolume


def test_scores_of_rewards_to_be_minimised_change_their_sign_and_back():
    signs = signs_of(("good", "bad"), {"bad"})
    scores = np.array([[1.0, 2.0], [0.0, 0.0]])
    assert turned(scores, signs).tolist() == [[1.0, -2.0], [0.0, 0.0]]
    assert turned(turned(scores, signs), signs).tolist() == scores.tolist()
    assert not np.signbit(turned(scores, signs)[1]).any()  # no -0.0, which is shown as -0.000


def test_an_interval_keeps_its_smaller_end_first():
    assert turned_interval((1.0, 2.0), 1.0) == (1.0, 2.0)
    assert turned_interval((0.0, 2.0), -1.0) == (-2.0, 0.0)


def test_front_and_volume_of_two_objectives_of_which_one_is_minimised():
    """Boxes to (0.6, 0.6): 0.2 by 0.5 for b, and 0.1 by 0.1 more for a."""
    signs = signs_of(("accuracy", "toxicity"), {"toxicity"})
    gains = turned(np.array([[0.9, 0.5], [0.8, 0.1], [0.6, 0.6]]), signs)
    assert non_dominated(gains).tolist() == [True, True, False]
    np.testing.assert_allclose(hypervolume(gains, turned(np.array([0.6, 0.6]), signs)), 0.11)


def test_front_and_volume_of_three_objectives_of_which_two_are_minimised():
    """Boxes to (0, 2, 3): 1 * 1 * 2 and 2 * 0.5 * 1, of which 1 * 0.5 * 1 is shared."""
    signs = signs_of(("accuracy", "toxicity", "tokens"), {"toxicity", "tokens"})
    gains = turned(np.array([[1.0, 1.0, 1.0], [2.0, 1.5, 2.0], [0.5, 1.5, 2.5]]), signs)
    assert non_dominated(gains).tolist() == [True, True, False]
    np.testing.assert_allclose(hypervolume(gains, turned(np.array([0.0, 2.0, 3.0]), signs)), 2.5)
