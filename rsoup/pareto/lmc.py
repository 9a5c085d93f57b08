"""Linear mode connectivity: does a mix score at least what the mix of its experts' scores says?"""

from __future__ import annotations

import numpy as np

from rsoup.pareto.dominance import Bools, Floats


def lmc_gap(scores: Floats, weights: Floats, experts: Floats) -> Floats:
    """Return R_k(sum_i w_i theta_i) - sum_i w_i R_k(theta_i) for every point and reward.

    ``scores`` (..., points, rewards), ``weights`` (points, experts), ``experts`` (..., experts, rewards); the gap is
    linear in the scores, so it may be taken of means, of single prompts or of bootstrap draws.
    Source: Rame et al. 2023, working hypothesis 1.
    """
    return scores - weights @ experts


def on_simplex(weights: Floats) -> Bools:
    """Mark the rows of (points, experts) without a negative weight and with the sum 1, where the hypothesis speaks."""
    marks: Bools = (weights >= 0).all(axis=1) & np.isclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    return marks
