"""The weights of a mix: checked, never repaired."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from rsoup.errors import AdapterError

MAX_POINTS = 10_000
_LARGEST = 3e38  # of float32
_TOLERANCE = 1e-6
_ALLOW = "allow it with --allow-extrapolation"


def check_weights(
    weights: Sequence[float],
    count: int,
    base_weight: float = 0.0,
    *,
    extrapolate: bool = False,
    what: Literal["adapter", "model"] = "adapter",
) -> None:
    """Raise AdapterError unless there is one finite weight per ingredient, on the simplex unless ``extrapolate``."""
    if count == 0:
        raise AdapterError(f"There is no {what} to mix.", f"Give at least one {what}.")
    if len(weights) != count:
        raise AdapterError(
            f"There are {len(weights)} weights for {count} {what}s.",
            f"Give one weight (-w) per {what}, in their order.",
        )
    everything = [*weights, base_weight]
    if not all(abs(weight) <= _LARGEST for weight in everything):
        raise AdapterError(
            f"The weights {_list(everything)} are not all finite, or too large to mix with.", "Give weights around 1."
        )
    if extrapolate:
        return
    if any(weight < 0 for weight in everything):
        raise AdapterError(
            f"The weights {_list([*weights, *([base_weight] if base_weight else [])])} include a negative one.",
            f"Use weights in [0, 1], or {_ALLOW}.",
        )
    total = math.fsum(everything)
    if abs(total - 1) > _TOLERANCE:
        raise AdapterError(
            f"The weights {_list(weights)} {_with_base(base_weight)}sum to {total:g}, not to 1.",
            f"Make them sum to 1, give the rest to the base with --base-weight, or {_ALLOW}.",
        )


def line_weights(position: float) -> tuple[float, float]:
    """Return the weights of two adapters at ``lambda`` = position: theta = (1 - lambda) theta_1 + lambda theta_2."""
    return 1.0 - position, position


def lattice(count: int, steps: int) -> list[tuple[float, ...]]:
    """Return every weighting of ``count`` adapters by multiples of 1 / ``steps`` that sum to 1, first corner first."""
    if steps < 1:
        raise AdapterError(f"A grid of {steps} steps has no points.", "Give --grid 1 or more.")
    points = math.comb(steps + count - 1, count - 1)
    if points > MAX_POINTS:
        raise AdapterError(
            f"A grid of {steps} steps over {count} adapters has {points:,} points, more than {MAX_POINTS:,}.",
            "Give a smaller --grid.",
        )
    return [tuple(part / steps for part in parts) for parts in _compositions(steps, count)]


def point_name(weights: Sequence[float], steps: int) -> str:
    """Return the name of a grid point, such as soup-0.70-0.30, with the digits that tell its neighbours apart."""
    digits = max(2, math.ceil(math.log10(steps)))
    return "-".join(["soup", *(f"{weight:.{digits}f}" for weight in weights)])


def square_warning(weights: Sequence[float], base_weight: float) -> list[str]:
    """Warn that averaged factors multiply: with weights that sum to W, the update grows with the square of W."""
    total = math.fsum([*weights, base_weight])
    if abs(total - 1) <= _TOLERANCE:
        return []
    return [f"The weights sum to {total:g}: under factors the update grows with the square of that, not in proportion."]


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """Yield the ways to write ``total`` as an ordered sum of ``count`` numbers, the largest first number first."""
    if count == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, count - 1):
            yield (first, *rest)


def _list(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)


def _with_base(base_weight: float) -> str:
    return f"and the base's {base_weight:g} " if base_weight else ""
