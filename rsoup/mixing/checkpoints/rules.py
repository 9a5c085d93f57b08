"""The ways to mix a tensor of several models, chunk by chunk.

theta_i is model i, theta_0 the base, w_i a weight, delta_i = theta_i - theta_0. All is computed in float32 or wider.
A rule is prepared for each tensor, for which it may read the whole of it first, and then computes any chunk alone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rsoup.adapters.tensorfile import Array
from rsoup.errors import AdapterError, did_you_mean
from rsoup.mixing.methods import DEFAULT_DENSITY, METHODS, Options, spherical_coefficients

Chunk = tuple[int, Sequence[Array]]
"""The number of a chunk, and for each ingredient its elements as float32."""
Compute = Callable[[int, Sequence[Array], Array], None]
"""Compute a chunk from its number and the ingredients' elements, which it may overwrite, into an array."""

_STRAIGHT = 0.9995
_RUN = 1 << 12
_SMALL, _LARGE = 1e-25, 1e30
_LOWER_BITS, _UPPER_VALUES, _LOWER_VALUES = 16, 1 << 15, 1 << 16
_MAGNITUDE = np.uint32(0x7FFFFFFF)


class Tensor(Protocol):
    """A tensor to be mixed: its name, its size, and its elements over and over, without the first's own."""

    name: str
    common: int

    def chunks(self) -> Iterator[Chunk]:
        """Yield all chunks in order; an array is valid until the next one is asked for."""


@dataclass(frozen=True)
class Shares:
    """What is mixed with which weights. With ``has_base`` the last ingredient is the base, and ``base_weight`` its own.

    ``keys`` tell the ingredients apart by content.
    """

    weights: tuple[float, ...]
    base_weight: float
    has_base: bool
    options: Options
    keys: tuple[str, ...] = ()

    @property
    def density(self) -> float:
        """The share of entries to keep."""
        return DEFAULT_DENSITY if self.options.density is None else self.options.density


def linear(_tensor: Tensor, shares: Shares) -> Compute:
    """theta = sum_i w_i theta_i, the base among them with its own weight. Source: model soups (arXiv 2203.05482)."""
    return _sum([*shares.weights, *([shares.base_weight] if shares.has_base else [])])


def task_arithmetic(_tensor: Tensor, shares: Shares) -> Compute:
    """theta = theta_0 + sum_i w_i delta_i. Source: task arithmetic (arXiv 2212.04089)."""
    return _sum([*shares.weights, 1.0 - math.fsum(shares.weights)])


def slerp(tensor: Tensor, shares: Shares) -> Compute:
    """Mix the tensors along great circles, as vectors.

    For two, theta = sin((1-t) a)/sin(a) theta_1 + sin(t a)/sin(a) theta_2 with a the angle between them and t = w_2
    (Shoemake 1985), and the weighted sum where |cos a| > 0.9995, as in mergekit; for more, the coefficients of the
    spherical weighted average of their directions (Buss and Fillmore 2001). With weights that sum to W, the average at
    w / W is scaled by W. Where one of them is zero this is the weighted sum.
    """
    total = math.fsum(shares.weights)
    if total == 0:
        raise AdapterError("Under slerp the weights of the models must not sum to 0.", "Use --method linear.")
    products = _gram(tensor, len(shares.weights))
    sizes = np.sqrt(np.diag(products))
    weights = [weight / total for weight in shares.weights]
    if (sizes == 0).any():
        return _sum(shares.weights)
    if len(weights) == 2 and abs(products[0, 1]) > _STRAIGHT * sizes[0] * sizes[1]:
        return _sum(shares.weights)
    try:
        return _sum([total * coefficient for coefficient in spherical_coefficients(products, weights)])
    except AdapterError as problem:
        raise AdapterError(
            f"{tensor.name}: under slerp, tensors that point in opposite directions have no average.",
            "Use --method linear.",
        ) from problem


def ties(tensor: Tensor, shares: Shares) -> Compute:
    """Return the disjoint merge of the deltas, on top of the base.

    Trim: keep of each delta_i the k = floor(density n) entries of largest magnitude, of equal ones the first. Elect:
    per entry the sign of sum_i w_i delta_i, plus if that is 0. Merge: theta = theta_0 + W sum_i m_i w_i delta_i /
    sum_i m_i w_i over those m_i with that sign, with W = sum_i w_i. A negative weight stands for the opposite delta.
    Source: TIES-merging (arXiv 2306.01708, algorithm 1), with mergekit's choices where that leaves any.
    """
    trims = _trims(tensor, len(shares.weights), shares.density)
    total = math.fsum(map(abs, shares.weights))

    def compute(number: int, arrays: Sequence[Array], out: Array) -> None:
        base, signed = arrays[-1], []
        for own, weight, array in zip(trims, shares.weights, arrays, strict=False):
            signed.append(own.kept(number, array - base) * np.float32(weight))
        elected = np.where(sum(signed[1:], signed[0]) >= 0, np.float32(1), np.float32(-1))
        merged, share = np.zeros_like(base), np.zeros_like(base)
        for delta, weight in zip(signed, shares.weights, strict=True):
            agrees = delta * elected > 0
            merged += delta * agrees
            share += agrees * np.float32(abs(weight))
        share += share == 0  # where none agrees there is nothing to divide
        merged *= np.float32(total)
        merged /= share
        np.add(base, merged, out=out)

    return compute


def dare(tensor: Tensor, shares: Shares) -> Compute:
    """theta = theta_0 + sum_i w_i m_i delta_i / p, where m_i keeps each entry with probability p = ``density``.

    The masks come from the seed, the tensor's name and the model itself, so the order of the models does not matter.
    Source: DARE (arXiv 2311.03099), with a linear merge.
    """
    density = shares.density
    seeds = [[shares.options.seed, _number(key, tensor.name)] for key in shares.keys]

    def compute(number: int, arrays: Sequence[Array], out: Array) -> None:
        base, total = arrays[-1], np.zeros_like(arrays[-1])
        for seed, weight, array in zip(seeds, shares.weights, arrays, strict=False):
            delta = array - base
            if density < 1:
                keep = np.random.default_rng([*seed, number]).random(len(delta), dtype=np.float32) < density
                delta *= keep
            total += delta * np.float32(weight / density)
        np.add(base, total, out=out)

    return compute


@dataclass(frozen=True)
class Rule:
    """A method: how it prepares a tensor, whether it needs or takes a base, whether it looks at whole tensors first."""

    prepare: Callable[[Tensor, Shares], Compute]
    base: str  # "needed", "allowed" or "refused"
    whole: bool


RULES: dict[str, Rule] = {
    "linear": Rule(linear, base="allowed", whole=False),
    "slerp": Rule(slerp, base="refused", whole=True),
    "task_arithmetic": Rule(task_arithmetic, base="needed", whole=False),
    "ties": Rule(ties, base="needed", whole=True),
    "dare": Rule(dare, base="needed", whole=False),
}


def check_rule(method: str, options: Options, *, has_base: bool, base_weight: float) -> None:
    """Raise AdapterError if a method is unknown, or what it is given does not go with it."""
    if method in METHODS and method not in RULES:
        raise AdapterError(
            f"The method {method} is for adapters, and these are whole models.",
            "Models mix by linear (the default: the mean of the weights) or slerp; with --base also by "
            "task_arithmetic, ties or dare.",
        )
    if method not in RULES:
        raise AdapterError(f"There is no method {method!r:.40} for whole models.", did_you_mean(method, RULES))
    rule = RULES[method]
    if rule.base == "needed" and not has_base:
        raise AdapterError(
            f"The method {method} mixes differences from a base.",
            "Give the model that all were made from: --base BASE.",
        )
    if rule.base == "refused" and has_base:
        raise AdapterError(f"The method {method} takes no base.", "Leave --base out, or use --method task_arithmetic.")
    if base_weight and not has_base:
        raise AdapterError("--base-weight gives a weight to a base that is not named.", "Add --base BASE.")
    if method == "linear" and has_base and not base_weight:
        raise AdapterError(
            "Under linear the base has no weight, so that --base would do nothing.",
            "Give it one (--base-weight), or use --method task_arithmetic, ties or dare.",
        )
    if options.rank is not None or options.energy is not None:
        raise AdapterError("Whole models have no rank to cut.", "Leave --rank and --energy out.")
    if options.density is not None and method not in ("ties", "dare"):
        raise AdapterError(f"The method {method} takes no density.", "Leave --density out, or use ties or dare.")
    if options.density is not None and not 0 < options.density <= 1:
        raise AdapterError(f"The density {options.density:g} is not in (0, 1].", "Give --density 0.9, say.")
    if options.seed < 0:
        raise AdapterError(f"The seed {options.seed} is negative.", "Give --seed 0 or more.")


def _sum(coefficients: Sequence[float]) -> Compute:
    """Return the weighted sum of all ingredients; one alone at weight 1 is taken as it is."""
    used = [(index, np.float32(value)) for index, value in enumerate(coefficients) if value]

    def compute(_number: int, arrays: Sequence[Array], out: Array) -> None:
        if not used:
            out[...] = 0
            return
        (first, value), *rest = used
        np.multiply(arrays[first], value, out=out)
        for index, own in rest:
            np.multiply(arrays[index], own, out=arrays[index])
            np.add(out, arrays[index], out=out)

    return compute


def _gram(tensor: Tensor, count: int) -> Array:
    """Return the inner products of the first ingredients, in float64."""
    products = np.zeros((count, count))
    pairs = list(itertools.combinations_with_replacement(range(count), 2))
    for _, arrays in tensor.chunks():
        for one, other in pairs:
            products[one, other] += _dot(arrays[one], arrays[other])
    return products + np.triu(products, 1).T


def _dot(one: Array, other: Array) -> float:
    """Return the inner product of two arrays of float32: runs of it in float32, their sum in float64.

    The error of a run is of its own, so that over many they average out. Where float32 is too narrow for the squares,
    all is done in float64.
    """
    whole = len(one) - len(one) % _RUN
    runs = np.vecdot(one[:whole].reshape(-1, _RUN), other[:whole].reshape(-1, _RUN))
    smallest, largest = (float(value) for value in (np.abs(runs).min(initial=np.inf), np.abs(runs).max(initial=0.0)))
    if not (smallest > _SMALL and largest < _LARGE):
        return float(one.astype(np.float64) @ other.astype(np.float64))
    return float(runs.sum(dtype=np.float64)) + float(one[whole:].astype(np.float64) @ other[whole:].astype(np.float64))


@dataclass(frozen=True)
class _Trim:
    """Keeps the entries of one delta whose magnitude is above a threshold, and of those at it the first few.

    ``room`` tells how many of these in each chunk; None for all of them.
    """

    threshold: np.uint32
    room: Sequence[int] | None

    def kept(self, number: int, delta: Array) -> Array:
        """Return a chunk of the delta with all other entries 0."""
        bits = _magnitudes(delta)
        delta *= bits >= self.threshold
        if self.room is not None:
            equal = np.flatnonzero(bits == self.threshold)
            delta[equal[self.room[number] :]] = 0
        return delta


def _trims(tensor: Tensor, count: int, density: float) -> list[_Trim]:
    """Return what keeps the largest entries of each delta: floor(density n) of them, at least one.

    The thresholds are found exactly by counting the upper and then the lower half of the bits of the magnitudes.
    """
    kept = max(1, int(density * tensor.common))
    if kept >= tensor.common:
        return [_Trim(np.uint32(0), None)] * count
    upper = [_select(counts, kept) for counts in _counts(tensor, [None] * count)]
    beneath = _counts(tensor, [value for value, _ in upper])
    lower = [_select(counts, kept - above) for counts, (_, above) in zip(beneath, upper, strict=True)]
    thresholds = [np.uint32(high << _LOWER_BITS | low) for (high, _), (low, _) in zip(upper, lower, strict=True)]
    rooms = [kept - above - beyond for (_, above), (_, beyond) in zip(upper, lower, strict=True)]
    full = [room == counts[low] for room, counts, (low, _) in zip(rooms, beneath, lower, strict=True)]
    shared_out: Sequence[Sequence[int] | None] = [None] * count
    if not all(full):
        shared_out = _shared_out(tensor, thresholds, rooms)
    return [_Trim(threshold, room) for threshold, room in zip(thresholds, shared_out, strict=True)]


def _shared_out(tensor: Tensor, thresholds: Sequence[np.uint32], rooms: Sequence[int]) -> list[list[int]]:
    """Return for each delta how many of its entries at the threshold are kept in each chunk: the first ones."""
    left = list(rooms)
    shares: list[list[int]] = [[] for _ in rooms]
    for _, arrays in tensor.chunks():
        for index, threshold in enumerate(thresholds):
            equal = int(np.count_nonzero(_magnitudes(arrays[index] - arrays[-1]) == threshold))
            shares[index].append(min(left[index], equal))
            left[index] -= shares[index][-1]
    return shares


def _magnitudes(delta: Array) -> Array:
    """Return the magnitudes of float32 numbers as integers of the same order."""
    return delta.view(np.uint32) & _MAGNITUDE


def _counts(tensor: Tensor, upper: Sequence[int | None]) -> list[Array]:
    """Return, for each delta, how often each upper half of its magnitudes' bits occurs, or each lower under one."""
    counts = [np.zeros(_UPPER_VALUES if value is None else _LOWER_VALUES, np.int64) for value in upper]
    for _, arrays in tensor.chunks():
        for index, value in enumerate(upper):
            bits = _magnitudes(arrays[index] - arrays[-1])
            high = bits >> np.uint32(_LOWER_BITS)
            if value is None:
                counts[index] += np.bincount(high, minlength=_UPPER_VALUES)
            else:
                low = bits[high == value] & np.uint32(_LOWER_VALUES - 1)
                counts[index] += np.bincount(low, minlength=_LOWER_VALUES)
    return counts


def _select(counts: Array, kept: int) -> tuple[int, int]:
    """Return the value of the ``kept``-th largest, and how many are larger than it."""
    from_above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_above, kept))
    return len(counts) - 1 - place, int(from_above[place] - counts[::-1][place])


def _number(*parts: str) -> int:
    """Return a number that some texts decide."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "little")
