"""Low-rank updates and their arithmetic, in float32 or wider; full matrices only where a method needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array

_OVERSAMPLES = 16
_POWER_ITERATIONS = 4
_ELEMENTS = 1 << 18


class Part(NamedTuple):
    """One adapter's update of a module, D = scale B A, and its weight."""

    layer: Layer
    weight: float


class Update(NamedTuple):
    """A mixed update scale * up @ down, and the share of its energy (squared Frobenius norm) that was cut off."""

    down: Array  # (rank, in)
    up: Array  # (out, rank)
    scale: float = 1.0
    discarded: float = 0.0


def wide(array: Array) -> Array:
    """Return an array as float32."""
    return array.astype(np.float32, copy=False)


def weighted_sum(arrays: Sequence[Array], weights: Sequence[float]) -> Array:
    """Return sum_i w_i x_i in float32; one array at weight 1 is returned as it is."""
    if len(arrays) == 1 and weights[0] == 1:
        return arrays[0]
    total = np.multiply(arrays[0], np.float32(weights[0]), dtype=np.float32)
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total += np.multiply(array, np.float32(weight), dtype=np.float32)
    return total


def stack(parts: Sequence[Part], coefficients: Sequence[float]) -> Update:
    """Return sum_i c_i D_i with the ranks side by side: B = [c_1 s_1 B_1, ...], A = [A_1; ...]."""
    out, size = parts[0].layer.shape
    rank = sum(part.layer.rank for part in parts)
    down, up = np.empty((rank, size), np.float32), np.empty((out, rank), np.float32)
    start = 0
    for part, coefficient in zip(parts, coefficients, strict=True):
        own = slice(start, start + part.layer.rank)
        down[own] = part.layer.down
        np.multiply(part.layer.up, np.float32(coefficient * part.layer.scale), out=up[:, own], dtype=np.float32)
        start = own.stop
    return Update(down, up)


def gram(layers: Sequence[Layer]) -> Array:
    """Return the inner products <D_i, D_j> of updates, from rank x rank products alone."""
    downs = [layer.down.astype(np.float64) for layer in layers]
    ups = [layer.up.astype(np.float64) * layer.scale for layer in layers]
    products = np.empty((len(layers), len(layers)))
    for i in range(len(layers)):
        for j in range(i, len(layers)):
            products[i, j] = products[j, i] = np.sum((ups[i].T @ ups[j]) * (downs[i] @ downs[j].T))
    return products


def inner(one: Layer, other: Layer) -> float:
    """Return <D, D'> of two updates, from rank x rank products alone."""
    outputs = one.up.astype(np.float64).T @ other.up.astype(np.float64)
    inputs = one.down.astype(np.float64) @ other.down.astype(np.float64).T
    return float(np.sum(outputs * inputs)) * one.scale * other.scale


def norms(products: Array) -> Array:
    """Return the Frobenius norms of updates from their inner products."""
    sizes: Array = np.sqrt(np.maximum(np.diag(products), 0.0))
    return sizes


def dense(layer: Layer) -> Array:
    """Return the full matrix of an update: (out, in)."""
    product: Array = (wide(layer.up) * np.float32(layer.scale)) @ wide(layer.down)
    return product


def cut_product(update: Update, rank: int, energy: float | None) -> Update:
    """Cut up @ down back to a rank, or to the smallest that keeps a share of the energy, by an SVD of the small core.

    up = Q_u R_u and down^T = Q_d R_d; the singular values of up @ down are those of R_u R_d^T.
    """
    left, up_core = np.linalg.qr(update.up.astype(np.float64))
    right, down_core = np.linalg.qr(update.down.T.astype(np.float64))
    u, s, vt = np.linalg.svd(up_core @ down_core.T, full_matrices=False)
    kept, discarded = _kept(s, float(np.sum(s**2)), rank, energy)
    root = np.sqrt(s[:kept])
    return Update((root[:, None] * vt[:kept]) @ right.T, left @ (u[:, :kept] * root), discarded=discarded)


def cut_matrix(matrix: Array, rank: int, energy: float | None, seed: int) -> Update:
    """Cut a full matrix back to a rank by a randomised SVD (Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1)."""
    total = squared_norm(matrix)
    if (rank + _OVERSAMPLES) * 2 >= min(matrix.shape):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    else:
        basis = _range_of(matrix, rank + _OVERSAMPLES, np.random.default_rng(seed))
        u, s, vt = np.linalg.svd(basis.T @ matrix, full_matrices=False)
        u = basis @ u
    kept, discarded = _kept(s, total, rank, energy)
    root = np.sqrt(s[:kept])
    return Update(root[:, None] * vt[:kept], u[:, :kept] * root, discarded=discarded)


def squared_norm(matrix: Array) -> float:
    """Return the squared Frobenius norm, summed in float64 a few rows at a time."""
    rows = max(1, _ELEMENTS // max(1, matrix.shape[-1]))
    parts = (matrix[start : start + rows].astype(np.float64).ravel() for start in range(0, len(matrix), rows))
    return float(sum(part @ part for part in parts))


def _range_of(matrix: Array, size: int, rng: np.random.Generator) -> Array:
    """Return an orthonormal basis of the dominant range, by power iteration from a random start: (out, size)."""
    basis, _ = np.linalg.qr(matrix @ rng.standard_normal((matrix.shape[1], size), dtype=np.float32))
    for _ in range(_POWER_ITERATIONS):
        basis, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ basis)
    return np.asarray(basis)


def _kept(singular_values: Array, total: float, rank: int, energy: float | None) -> tuple[int, float]:
    """Return how many singular values to keep, and the share of the energy that the others hold."""
    kept = min(rank, len(singular_values))
    if total == 0:
        return 1, 0.0
    shares = np.cumsum(singular_values.astype(np.float64) ** 2) / total
    if energy is not None:
        kept = min(kept, int(np.searchsorted(shares, energy - 1e-12)) + 1)
    return kept, max(0.0, 1.0 - float(shares[kept - 1]))
