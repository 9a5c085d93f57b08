"""Turn scores into gains, which are better when larger, and back.

Scores are turned once, before anything compares them, and turned back where they are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from rsoup.pareto.dominance import Floats


def signs_of(rewards: Iterable[str], minimized: Collection[str]) -> Floats:
    """Return (rewards,): -1 where lower scores are better, else 1."""
    return np.array([-1.0 if name in minimized else 1.0 for name in rewards])


def turned(values: Floats, signs: Floats) -> Floats:
    """Return scores (..., rewards) as gains, or gains as scores: the same step leads there and back."""
    return np.asarray(values * signs + 0.0)  # + 0.0 turns -0.0 into 0.0


def turned_interval(interval: tuple[float, float], sign: float) -> tuple[float, float]:
    """Return the ends of an interval of one reward, the smaller one first."""
    low, high = interval
    return (low, high) if sign > 0 else (0.0 - high, 0.0 - low)
