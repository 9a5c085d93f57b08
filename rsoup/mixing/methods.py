"""The ways to mix the updates of one module.

D_i = s_i B_i A_i is the update of adapter i, w_i its weight. Every method but ``factors`` works on the D_i, so
ranks and scales may differ, and a module that an adapter leaves alone counts as a zero update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array, raw_bytes
from rsoup.errors import AdapterError, did_you_mean
from rsoup.mixing.updates import Part, Update, cut_matrix, cut_product, dense, gram, norms, stack, weighted_sum

DEFAULT_DENSITY = 0.5
_PARALLEL = 1e-7  # below this angle two directions count as one
_OPPOSITE = 1e-3  # within this of a half turn they have no unique average
_CONVERGED = 1e-12
_STEPS = 1000


@dataclass(frozen=True)
class Options:
    """What some methods take: the rank or share of energy to keep, the density of kept entries, the seed.

    ``None`` leaves the choice to the method: ``svd`` keeps the largest rank among the adapters, ``ties`` and ``dare``
    the sum of their ranks, ``slerp`` every rank; the density is 0.5.
    """

    rank: int | None = None
    energy: float | None = None
    density: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Ingredients:
    """What a method mixes into the update of one module.

    ``parts`` are the adapters that update the module; ``total`` is the sum of the sizes of all adapters' weights, those
    that leave it alone included; ``base_weight`` is the weight of "no adapter".
    """

    parts: Sequence[Part]
    total: float
    base_weight: float
    options: Options

    @property
    def density(self) -> float:
        """The share of entries to keep."""
        return DEFAULT_DENSITY if self.options.density is None else self.options.density

    @property
    def weights(self) -> list[float]:
        """The weights of the parts."""
        return [part.weight for part in self.parts]


def factors(of: Ingredients) -> Update:
    """Return the average of the factors: A = sum_i w_i A_i and B = sum_i w_i B_i, with the scale they share.

    The base, as an ingredient, has B = 0 and for A the mean of the others', so that it scales the update linearly.
    Source: Rewarded soups (arXiv 2306.04488) with theta = (A, B), as the authors' code does.
    """
    return Update(
        down=weighted_sum([part.layer.down for part in of.parts], down_weights(of.weights, of.base_weight)),
        up=weighted_sum([part.layer.up for part in of.parts], of.weights),
        scale=of.parts[0].layer.scale,
    )


def cat(of: Ingredients) -> Update:
    """Return the exact sum D = sum_i w_i D_i as B = [w_1 s_1 B_1, ...], A = [A_1; ...]: the ranks add up.

    Source: task arithmetic (arXiv 2212.04089) on the updates; PEFT calls it "cat".
    """
    return stack(of.parts, of.weights)


def svd(of: Ingredients) -> Update:
    """Return the best approximation of sum_i w_i D_i of a rank, or with a share of its energy.

    U_k S_k V_k^T of the sum, split evenly: B = U_k S_k^(1/2), A = S_k^(1/2) V_k^T. Source: Eckart and Young (1936).
    """
    rank = _rank(of.options, max(part.layer.rank for part in of.parts))
    return cut_product(cat(of), rank, of.options.energy)


def slerp(of: Ingredients) -> Update:
    """Return the spherical average of the D_i: their directions mixed along great circles.

    For two, D = sin((1-t) a)/sin(a) D_1 + sin(t a)/sin(a) D_2 with a the angle between them and t = w_2 (Shoemake
    1985); for more, the same sum with the coefficients of the spherical weighted average of the directions (Buss and
    Fillmore 2001). With weights that sum to W, the average at w / W is scaled by W. Where an update is zero or all
    point one way, this is the weighted sum.
    """
    if not any(of.weights):
        return cat(of)
    total = math.fsum(of.weights)
    if total == 0:
        raise AdapterError("Under slerp the weights of the adapters must not sum to 0.", "Use --method cat or svd.")
    products = gram([part.layer for part in of.parts])
    coefficients = spherical_coefficients(products, [weight / total for weight in of.weights])
    update = stack(of.parts, [total * coefficient for coefficient in coefficients])
    if of.options.rank is None and of.options.energy is None:
        return update
    return cut_product(update, _rank(of.options, update.down.shape[0]), of.options.energy)


def ties(of: Ingredients) -> Update:
    """Return the disjoint merge: per entry, the weighted mean of the trimmed D_i that have the elected sign.

    Trim: keep the ``density`` of each D_i with the largest magnitude. Elect: the sign of sum_i w_i D_i. Merge:
    D = W sum_i m_i w_i D_i / sum_i m_i w_i over those m_i that agree, with W = sum_i w_i, then cut to a rank. A
    negative weight stands for the opposite update.
    Source: TIES-merging (arXiv 2306.01708, algorithm 1), with mergekit's weights.
    """
    signed, elected = vote(of)
    sizes = [abs(weight) for weight in of.weights]
    total = np.zeros_like(elected)
    share = np.zeros_like(elected)
    for matrix, size in zip(signed, sizes, strict=True):
        agrees = (np.sign(matrix) == elected) & (elected != 0)
        total += np.where(agrees, matrix * np.float32(size), np.float32(0))
        share += agrees * np.float32(size)
    merged = np.divide(total * np.float32(of.total), share, out=np.zeros_like(total), where=share > 0)
    return _cut_dense(merged, of)


def vote(of: Ingredients) -> tuple[list[Array], Array]:
    """Return the trimmed updates of ``ties``, turned by the signs of their weights, and the sign elected per entry."""
    signed = [_trim(dense(part.layer), of.density) * np.float32(math.copysign(1, part.weight)) for part in of.parts]
    elected: Array = np.sign(weighted_sum(signed, [abs(weight) for weight in of.weights]))
    return signed, elected


def dare(of: Ingredients) -> Update:
    """Return D = sum_i w_i m_i D_i / p, where m_i keeps each entry with probability p = ``density``, cut to a rank.

    The masks come from ``seed`` and the update itself, so the order of the adapters does not matter.
    Source: DARE (arXiv 2311.03099), with a linear merge.
    """
    kept = [_drop(dense(part.layer), of.density, [of.options.seed, _fingerprint(part.layer)]) for part in of.parts]
    return _cut_dense(weighted_sum(kept, of.weights), of)


Method = Callable[[Ingredients], Update]
METHODS: dict[str, Method] = {"factors": factors, "cat": cat, "svd": svd, "slerp": slerp, "ties": ties, "dare": dare}
OF_MODELS = ("linear", "task_arithmetic")
"""Ways to mix whole models that adapters have not under this name."""
_TAKES = {
    "rank": ("svd", "slerp", "ties", "dare"),
    "energy": ("svd", "slerp", "ties", "dare"),
    "density": ("ties", "dare"),
}


def check_method(method: str, options: Options) -> None:
    """Raise AdapterError if the method is unknown, or an option is out of its range or not for this method."""
    if method in OF_MODELS:
        raise AdapterError(
            f"The method {method} is for whole models, and these are adapters.",
            "Adapters mix by factors (the default: the paper's average of A and of B), cat (the exact mix), svd, "
            "slerp, ties or dare.",
        )
    if method not in METHODS:
        raise AdapterError(f"There is no method {method!r:.40}.", did_you_mean(method, METHODS))
    for name, methods in _TAKES.items():
        if getattr(options, name) is not None and method not in methods:
            raise AdapterError(
                f"The method {method} takes no {name}.", f"Leave --{name} out, or use --method {' or '.join(methods)}."
            )
    check_options(options)


def check_options(options: Options) -> None:
    """Raise AdapterError if an option is out of its range."""
    if options.rank is not None and options.rank < 1:
        raise AdapterError(f"The rank {options.rank} is below 1.", "Give --rank 1 or more.")
    for name in ("energy", "density"):
        value = getattr(options, name)
        if value is not None and not 0 < value <= 1:
            raise AdapterError(f"The {name} {value:g} is not in (0, 1].", f"Give --{name} 0.9, say.")
    if options.seed < 0:
        raise AdapterError(f"The seed {options.seed} is negative.", "Give --seed 0 or more.")


def down_weights(weights: Sequence[float], base_weight: float) -> list[float]:
    """Return the weights of A when the base takes part with the mean of the others' A."""
    share = math.fsum(weights)
    if base_weight == 0:
        return list(weights)
    if share == 0:
        return [1.0 / len(weights)] * len(weights)
    return [weight * (share + base_weight) / share for weight in weights]


def _rank(options: Options, default: int) -> int:
    """Return the rank to keep at most; a share of energy alone sets no limit of its own."""
    if options.rank is not None:
        return options.rank
    return default if options.energy is None else 1 << 30


def _cut_dense(matrix: Array, of: Ingredients) -> Update:
    rank = of.options.rank or sum(part.layer.rank for part in of.parts)
    return cut_matrix(matrix, rank, of.options.energy, of.options.seed)


def spherical_coefficients(products: Array, weights: Sequence[float]) -> list[float]:
    """Return c such that sum_i c_i D_i is the spherical weighted average of the D_i, from their inner products.

    The average m = sum_i a_i u_i of the unit vectors u_i = D_i / |D_i| solves sum_i w_i log_m(u_i) = 0; each step
    moves m along the weighted mean of the tangents at m, all in the coefficients a. At the solution, with angles t_i
    between m and u_i, m = sum_i b_i u_i / sum_i b_i cos(t_i) for b_i = w_i t_i / sin(t_i): those coefficients are one
    way to write m even where the u_i depend on each other.
    """
    sizes = norms(products)
    w = np.asarray(weights, dtype=np.float64)
    if (sizes == 0).any():
        return [float(x) for x in w]
    cosines = products / np.outer(sizes, sizes)
    if len(w) == 2:
        return _great_circle(float(cosines[0, 1]), w)
    a = _unit(w, cosines)
    for _ in range(_STEPS):
        heights = np.clip(cosines @ a, -1.0, 1.0)
        angles = np.arccos(heights)
        if angles.max() > math.pi - _OPPOSITE:
            raise _no_average()
        ratios = np.where(angles > _PARALLEL, angles / np.maximum(np.sin(angles), _PARALLEL), 1.0)
        b = w * ratios
        tangent = b - (b @ heights) * a
        step = math.sqrt(max(0.0, float(tangent @ cosines @ tangent)))
        if step < _CONVERGED:
            return [float(x) for x in b / (b @ heights)]
        a = _unit(math.cos(step) * a + math.sin(step) / step * tangent, cosines)
    raise _no_average()


def _great_circle(cosine: float, weights: Array) -> list[float]:
    """Return the coefficients of two unit vectors on the great circle through them."""
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    if angle > math.pi - _OPPOSITE:
        raise _no_average()
    if angle < _PARALLEL:
        return [float(x) for x in weights]
    return [math.sin(float(x) * angle) / math.sin(angle) for x in weights]


def _unit(coefficients: Array, cosines: Array) -> Array:
    """Scale coefficients so that the combination of unit vectors that they stand for has length 1."""
    length = math.sqrt(max(0.0, float(coefficients @ cosines @ coefficients)))
    if length < _OPPOSITE:
        raise _no_average()
    return coefficients / length


def _no_average() -> AdapterError:
    return AdapterError(
        "Under slerp, updates that point in opposite directions have no average.", "Use --method cat or svd."
    )


def _trim(matrix: Array, density: float) -> Array:
    """Keep the entries of largest magnitude, ``density`` of them and those equal to the smallest kept."""
    kept = max(1, round(density * matrix.size))
    if kept >= matrix.size:
        return matrix
    magnitude = np.abs(matrix)
    threshold = np.partition(magnitude, matrix.size - kept, axis=None)[matrix.size - kept]
    matrix[magnitude < threshold] = 0
    return matrix


def _drop(matrix: Array, density: float, seed: list[int]) -> Array:
    """Keep each entry with probability ``density``, divided by it."""
    if density == 1:
        return matrix
    keep = np.random.default_rng(seed).random(matrix.shape, dtype=np.float32) < density
    dropped: Array = matrix * keep / np.float32(density)
    return dropped


def _fingerprint(layer: Layer) -> int:
    """Return a number that the bytes of an update decide."""
    digest = hashlib.sha256(raw_bytes(layer.down))
    digest.update(raw_bytes(layer.up))
    return int.from_bytes(digest.digest()[:8], "little")
