"""How the updates of adapters lie to each other in a module, from their factors, and what chance would give.

D_i = U_i S_i V_i^T is the update of adapter i, (out, in). All is kept as sums that add up over modules, so that a
module, a whole adapter and every pair of adapters are judged alike.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array
from rsoup.mixing.updates import gram, norms, wide

SIGNS_BY_CHANCE = 0.5
"""The share of equal signs, counted or weighted by size, between independent updates."""
_CHUNK = 1 << 18
_LEAST_SEEN, _MOST_SEEN, _ALL_SEEN = 1 << 14, 1 << 20, 1 << 26
_SAME_SINGULAR = 1e-7  # of the largest singular value: below, a direction is rounding


@dataclass(frozen=True)
class PairFacts:
    """Two adapters, over one module or over all; None where one of them has no update there.

    ``cosine`` is <D_a, D_b> / (|D_a| |D_b|); ``cosine_chance`` the root mean square that it has if one of them is
    turned at random, and ``cosine_chance_inputs`` if its input directions stay as they are. ``signs`` is the share of
    entries with the same sign, ``signs_by_size`` the same weighted by |d_a d_b|; both are 0.5 for independent updates.
    ``outputs`` and ``inputs`` are the mean squared cosines of the principal angles of their column and row spaces,
    with those of random spaces of the same ranks. ``ratio`` is |D_b| / |D_a|. ``apart`` is
    |D_a - D_b| / (|D_a| + |D_b|): 0 for equal updates, 0.71 for orthogonal ones of one norm, 1 for opposite ones.
    """

    a: int
    b: int
    cosine: float | None
    cosine_chance: float | None
    cosine_chance_inputs: float | None
    signs: float | None
    signs_by_size: float | None
    outputs: float | None
    outputs_chance: float | None
    inputs: float | None
    inputs_chance: float | None
    ratio: float | None
    apart: float | None

    @property
    def chance(self) -> float | None:
        """The cosine that is to be expected of independent updates, their input directions being what they are."""
        known = [chance for chance in (self.cosine_chance, self.cosine_chance_inputs) if chance is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Geometry:
    """Sums over modules for every pair of adapters, each (adapters, adapters)."""

    products: Array  # <D_i, D_j>
    turned: Array  # the mean of <D_i, D_j>^2 if D_j is turned at random on both sides
    turned_outputs: Array  # and if on the side of the outputs alone
    signs: Array  # equal signs minus different ones
    both: Array  # entries where both are not zero
    signed_size: Array  # sum of d_i d_j over the entries seen
    size: Array  # sum of |d_i d_j|
    outputs: Array  # |U_i^T U_j|^2
    outputs_chance: Array
    inputs: Array  # |V_i^T V_j|^2
    inputs_chance: Array
    ranks: Array  # the smaller rank of both

    @staticmethod
    def zero(count: int) -> Geometry:
        """Return the sums of no module."""
        return Geometry(*(np.zeros((count, count)) for _ in dataclasses.fields(Geometry)))

    def __add__(self, other: Geometry) -> Geometry:
        names = [field.name for field in dataclasses.fields(Geometry)]
        return Geometry(*(getattr(self, name) + getattr(other, name) for name in names))

    def placed(self, where: Sequence[int], count: int) -> Geometry:
        """Return the sums of adapters that are these of ``count``."""
        whole = Geometry.zero(count)
        for field in dataclasses.fields(Geometry):
            getattr(whole, field.name)[np.ix_(where, where)] = getattr(self, field.name)
        return whole

    @property
    def norms(self) -> list[float]:
        """The norm of each adapter's update."""
        return [float(size) for size in norms(self.products)]

    @property
    def cosines(self) -> list[list[float | None]]:
        """The cosine of every two updates."""
        sizes = self.norms
        return [
            [_ratio(product, a * b) for product, b in zip(row, sizes, strict=True)]
            for row, a in zip(self.products, sizes, strict=True)
        ]

    @property
    def pairs(self) -> list[PairFacts]:
        """What there is to say of every two adapters."""
        return [self.pair(a, b) for a, b in itertools.combinations(range(len(self.products)), 2)]

    def pair(self, a: int, b: int) -> PairFacts:
        """Return what there is to say of two adapters."""
        one, two = self.norms[a], self.norms[b]
        product, both = float(self.products[a, b]), one * two
        apart = math.sqrt(max(0.0, one**2 + two**2 - 2 * product))
        return PairFacts(
            a=a,
            b=b,
            cosine=_ratio(product, both),
            cosine_chance=_ratio(math.sqrt(self.turned[a, b]), both),
            cosine_chance_inputs=_ratio(math.sqrt(self.turned_outputs[a, b]), both) if self.ranks[a, b] else None,
            signs=_half(self.signs[a, b], self.both[a, b]),
            signs_by_size=_half(self.signed_size[a, b], self.size[a, b]),
            outputs=_ratio(self.outputs[a, b], self.ranks[a, b]),
            outputs_chance=_ratio(self.outputs_chance[a, b], self.ranks[a, b]),
            inputs=_ratio(self.inputs[a, b], self.ranks[a, b]),
            inputs_chance=_ratio(self.inputs_chance[a, b], self.ranks[a, b]),
            ratio=_ratio(two, one) if two else None,
            apart=_ratio(apart, one + two) if both else None,
        )


def entries_seen(modules: int) -> int:
    """Return how many entries of a module are looked at for their signs, where there are so many modules."""
    return min(_MOST_SEEN, max(_LEAST_SEEN, _ALL_SEEN // max(1, modules)))


def rows_seen(shape: tuple[int, int], seen: int) -> int:
    """Return in how many rows of a module signs are looked at, if in at most ``seen`` entries."""
    return max(1, min(shape[0], seen // shape[1]))


def geometry(layers: Sequence[Layer], seen: int) -> Geometry:
    """Measure the updates of one module; signs in at most ``seen`` of its entries, in rows drawn at random."""
    out, size = layers[0].shape
    bases = [_bases(layer) for layer in layers]
    count = len(layers)
    found = Geometry.zero(count)
    found.products[...] = gram(layers)
    squares = np.diag(found.products)
    found.turned[...] = np.outer(squares, squares) / (out * size)
    for i in range(count):
        for j in range(count):
            one, two = bases[i], bases[j]
            inputs = one.inputs.T @ two.inputs
            found.turned_outputs[i, j] = np.sum((one.sizes[:, None] * inputs * two.sizes) ** 2) / out
            found.inputs[i, j] = np.sum(inputs**2)
            found.outputs[i, j] = np.sum((one.outputs.T @ two.outputs) ** 2)
            found.ranks[i, j] = min(len(one.sizes), len(two.sizes))
            found.outputs_chance[i, j] = len(one.sizes) * len(two.sizes) / out
            found.inputs_chance[i, j] = len(one.sizes) * len(two.sizes) / size
    _count_signs(layers, rows_seen(layers[0].shape, seen), found)
    return found


class _Bases(NamedTuple):
    """The singular vectors and values of an update that are not zero."""

    outputs: Array  # U (out, rank)
    sizes: Array  # S (rank,)
    inputs: Array  # V (in, rank)


def _bases(layer: Layer) -> _Bases:
    """Decompose an update by its factors: with up = Q_u R_u, down^T = Q_d R_d, by the small core R_u R_d^T."""
    left, up_core = np.linalg.qr(layer.up.astype(np.float64))
    right, down_core = np.linalg.qr(layer.down.T.astype(np.float64))
    u, s, vt = np.linalg.svd(up_core @ down_core.T, full_matrices=False)
    kept = int(np.count_nonzero(s > _SAME_SINGULAR * s[0])) if len(s) and s[0] > 0 else 0
    return _Bases(left @ u[:, :kept], s[:kept] * layer.scale, right @ vt[:kept].T)


def _count_signs(layers: Sequence[Layer], rows: int, found: Geometry) -> None:
    """Add up signs and sizes of the entries of some rows, scaled to all of them; a chunk of rows at a time."""
    out, size = layers[0].shape
    chosen = np.arange(out)
    if rows < out:
        chosen = np.sort(np.random.default_rng([out, size]).choice(out, rows, replace=False))
    downs = [wide(layer.down) for layer in layers]
    step, scale = max(1, _CHUNK // size), out / len(chosen)
    scales = np.array([layer.scale for layer in layers])
    factors = np.outer(scales, scales)
    for start in range(0, len(chosen), step):
        own = chosen[start : start + step]
        entries = np.stack([(wide(layer.up[own]) @ down).ravel() for layer, down in zip(layers, downs, strict=True)])
        signs, sizes = np.sign(entries), np.abs(entries)
        found.signs[...] += signs @ signs.T * np.sign(factors) * scale
        there = np.abs(signs)
        found.both[...] += there @ there.T * scale
        found.signed_size[...] += (entries @ entries.T).astype(np.float64) * factors * scale
        found.size[...] += (sizes @ sizes.T).astype(np.float64) * np.abs(factors) * scale


def _ratio(value: Any, whole: Any) -> float | None:
    return float(value / whole) if whole else None


def _half(difference: Any, whole: Any) -> float | None:
    """Return the share of what agrees, from what agrees minus what does not."""
    return float((1 + difference / whole) / 2) if whole else None
