"""The gap between a mix and the line of its experts."""

from __future__ import annotations

import numpy as np

from rsoup.pareto.lmc import lmc_gap, on_simplex


def test_gap_by_hand():
    experts = np.array([[1.0, 0.0], [0.0, 2.0]])
    gap = lmc_gap(np.array([[0.8, 0.9]]), np.array([[0.75, 0.25]]), experts)
    np.testing.assert_allclose(gap, [[0.05, 0.4]])


def test_an_expert_has_no_gap():
    experts = np.array([[0.3, 0.7], [0.9, 0.1], [0.2, 0.2]])
    assert (lmc_gap(experts, np.eye(3), experts) == 0).all()


def test_the_gap_of_means_is_the_mean_of_gaps():
    generator = np.random.default_rng(0)
    scores, experts = generator.normal(size=(50, 4, 2)), generator.normal(size=(50, 3, 2))
    weights = generator.dirichlet(np.ones(3), 4)
    single = lmc_gap(scores, weights, experts)
    np.testing.assert_allclose(single.mean(axis=0), lmc_gap(scores.mean(axis=0), weights, experts.mean(axis=0)))


def test_the_hypothesis_speaks_of_the_simplex_only():
    weights = np.array([[0.3, 0.7], [1.2, -0.2], [0.5, 0.4], [1.0, 0.0]])
    assert on_simplex(weights).tolist() == [True, False, False, True]
