"""Which points no other point beats."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def require_finite(scores: Floats) -> Floats:
    """Return scores of shape (points, rewards) unchanged; raise ValueError at the first row that is not finite."""
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores have the shape {scores.shape}, not (points, rewards)")
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if bad.size:
        raise ValueError(f"row {bad[0]} of the scores holds {scores[bad[0]].tolist()}")
    return scores


def non_dominated(scores: Floats) -> Bools:
    """Mark the front among scores of shape (points, rewards); equal points stand or fall together."""
    front: Bools = moocore.is_nondominated(require_finite(scores), maximise=True, keep_weakly=True)
    return front


def dominates(first: Floats, second: Floats) -> Bools:
    """Return (A, B): is row a of (A, rewards) nowhere worse and somewhere better than row b of (B, rewards)?"""
    return weakly_dominates(first, second) & ~weakly_dominates(second, first).T


def weakly_dominates(first: Floats, second: Floats) -> Bools:
    """Return (A, B): is row a of (A, rewards) nowhere worse than row b of (B, rewards)?"""
    marks: Bools = np.all(first[:, None, :] >= second[None, :, :], axis=2)
    return marks
