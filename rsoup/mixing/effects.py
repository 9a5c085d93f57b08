"""What each method would make of updates: how far from their exact mix, how long, how much of it left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from rsoup.adapters import Layer
from rsoup.adapters.tensorfile import Array
from rsoup.errors import AdapterError
from rsoup.mixing.methods import METHODS, Ingredients, vote
from rsoup.mixing.updates import Update, inner

LIMIT = 1 << 24
"""Entries of the modules on which methods are tried that work on full matrices, all together."""
LARGEST = 1 << 26
"""Entries of the largest module that may be one of them."""
DENSE = ("ties", "dare")
"""The methods that work on full matrices."""


@dataclass(frozen=True)
class Effect:
    """What a method makes of the updates, over the ``layers`` modules that it was tried on.

    ``distance`` is |M - E| / |E| (Frobenius) of what it writes, M, from the exact mix E = sum_i w_i D_i; ``norm`` is
    |M| / |E|. ``dropped`` is the share of an update's entries that it drops; ``conflicts`` the share of the entries it
    keeps at which the adapters' signs are opposed, so that one is elected. ``reason`` says why it could not be tried.
    """

    distance: float | None
    norm: float | None
    dropped: float | None = None
    conflicts: float | None = None
    layers: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """One module under a method: squared norms, entries kept by the vote, and those in conflict."""

    exact: float
    mixed: float
    error: float
    kept: float = 0.0
    conflicts: float = 0.0


def tried_modules(sizes: Mapping[str, int]) -> list[str]:
    """Return the modules, of these numbers of entries, that stand for all under methods on full matrices.

    Where all are too many, an even choice among those of each kind (the last part of their names).
    """
    small = [module for module, size in sizes.items() if size <= LARGEST]
    ordered = sorted(small, key=lambda module: module.rpartition(".")[2])  # stable: the order of the layers stays
    every = max(1, math.ceil(sum(sizes[module] for module in ordered) / LIMIT))
    chosen: list[str] = []
    left = LIMIT
    for module in ordered[min(every // 2, max(0, len(ordered) - 1)) :: every]:
        if sizes[module] <= left or not chosen:
            chosen.append(module)
            left -= sizes[module]
    return chosen


def try_method(method: str, of: Ingredients, products: Array) -> Trial | AdapterError:
    """Mix one module and compare with the exact mix, or return why it cannot be.

    ``products`` are the inner products of the updates.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return _trial(method, of, products)
    except AdapterError as problem:
        return problem
    except np.linalg.LinAlgError as problem:
        return AdapterError(f"cannot be decomposed ({problem})", "")


def _trial(method: str, of: Ingredients, products: Array) -> Trial:
    weights = np.array(of.weights)
    exact = max(0.0, float(weights @ products @ weights))
    if method == "cat":
        return Trial(exact, exact, 0.0)
    update = METHODS[method](of)
    layer = _layer(update, of.parts[0].layer)
    crossed = float(weights @ np.array([inner(layer, part.layer) for part in of.parts]))
    mixed = inner(layer, layer)
    kept, conflicts = _votes(of) if method == "ties" else (0.0, 0.0)
    return Trial(exact, mixed, max(0.0, mixed - 2 * crossed + exact), kept, conflicts)


def effect(method: str, trials: Iterable[Trial | AdapterError], density: float) -> Effect:
    """Return what a method does over all modules that it was tried on; its first error, if one cannot be mixed."""
    tried: list[Trial] = []
    for trial in trials:
        if isinstance(trial, AdapterError):
            return refused(trial.message)
        tried.append(trial)
    if not tried:
        return refused("every module is too large to be tried")
    exact, mixed, error = (math.fsum(getattr(trial, name) for trial in tried) for name in ("exact", "mixed", "error"))
    kept = math.fsum(trial.kept for trial in tried)
    conflicts = math.fsum(trial.conflicts for trial in tried) / kept if kept else 0.0
    return Effect(
        distance=math.sqrt(error / exact) if exact else None if error else 0.0,
        norm=math.sqrt(mixed / exact) if exact else None,
        dropped=1 - density if method in DENSE else None,
        conflicts=conflicts if method == "ties" else None,
        layers=len(tried),
    )


def refused(reason: str) -> Effect:
    """Return the effect of a method that cannot be used."""
    return Effect(None, None, reason=reason)


def _layer(update: Update, like: Layer) -> Layer:
    return Layer(like.kind, update.down, update.up, update.scale)


def _votes(of: Ingredients) -> tuple[float, float]:
    """Return at how many entries any adapter kept a value, and at how many of them two are of opposite signs."""
    signed, _ = vote(of)
    up = np.any([matrix > 0 for matrix in signed], axis=0)
    down = np.any([matrix < 0 for matrix in signed], axis=0)
    return float(np.count_nonzero(up | down)), float(np.count_nonzero(up & down))
