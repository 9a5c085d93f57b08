"""How updates lie to each other, beside dense matrices, scipy's principal angles, and random rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

from rsoup.adapters import Layer
from rsoup.mixing.geometry import entries_seen, geometry, rows_seen

ALL = 1 << 20


def layer(seed: int, out: int = 9, size: int = 7, rank: int = 2, scale: float = 1.5) -> Layer:
    rng = np.random.default_rng(seed)
    down, up = rng.standard_normal((rank, size)), rng.standard_normal((out, rank))
    return Layer("linear", down.astype(np.float32), up.astype(np.float32), scale)


def full(own: Layer) -> Any:
    return own.scale * (own.up.astype(np.float64) @ own.down.astype(np.float64))


@pytest.mark.parametrize(("rank", "scale"), [(2, 1.5), (3, -0.5)])
def test_a_pair_is_what_full_matrices_and_principal_angles_say(rank: int, scale: float) -> None:
    layers = [layer(0), layer(1, rank=rank, scale=scale)]
    one, two = map(full, layers)
    facts = geometry(layers, ALL).pair(0, 1)
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    assert facts.cosine == pytest.approx(np.sum(one * two) / np.prod(lengths))
    assert facts.ratio == pytest.approx(lengths[1] / lengths[0])
    assert facts.apart == pytest.approx(np.linalg.norm(one - two) / sum(lengths))
    assert facts.signs == pytest.approx(np.mean(np.sign(one) == np.sign(two)))
    sizes = np.abs(one * two)
    assert facts.signs_by_size == pytest.approx(np.sum(sizes[one * two > 0]) / np.sum(sizes), rel=1e-6)
    outputs = subspace_angles(layers[0].up, layers[1].up)
    inputs = subspace_angles(layers[0].down.T, layers[1].down.T)
    assert facts.outputs == pytest.approx(np.mean(np.cos(outputs) ** 2), rel=1e-5)
    assert facts.inputs == pytest.approx(np.mean(np.cos(inputs) ** 2), rel=1e-5)


def test_chance_is_the_mean_over_random_rotations() -> None:
    """E<D, U D' V>^2 = |D|^2 |D'|^2 / (out in); with U alone |D D'^T|^2 / out; E cos^2 = larger rank / dimension."""
    layers = [layer(0, 6, 5), layer(1, 6, 5, rank=3)]
    facts = geometry(layers, ALL).pair(0, 1)
    one, two = map(full, layers)
    lengths = np.linalg.norm(one) * np.linalg.norm(two)
    draws = 4000
    turns = ortho_group.rvs(6, size=draws, random_state=0), ortho_group.rvs(5, size=draws, random_state=1)
    both = [np.sum(one * (u @ two @ v)) / lengths for u, v in zip(*turns, strict=True)]
    outputs = [np.sum(one * (u @ two)) / lengths for u in turns[0]]
    assert facts.cosine_chance == pytest.approx(np.sqrt(np.mean(np.square(both))), rel=0.05)
    assert facts.cosine_chance_inputs == pytest.approx(np.sqrt(np.mean(np.square(outputs))), rel=0.05)
    spaces = [np.mean(np.cos(subspace_angles(layers[0].up, u @ layers[1].up)) ** 2) for u in turns[0][:500]]
    assert facts.outputs_chance == pytest.approx(np.mean(spaces), rel=0.05) == pytest.approx(3 / 6, rel=0.05)
    assert facts.inputs_chance == pytest.approx(3 / 5)


def test_sums_over_modules_are_those_of_the_matrices_side_by_side() -> None:
    modules = [[layer(0), layer(1)], [layer(2, 4, 8, 1), layer(3, 4, 8, 3, 0.1)]]
    whole = geometry(modules[0], ALL) + geometry(modules[1], ALL)
    one, two = (np.concatenate([full(own[place]).ravel() for own in modules]) for place in (0, 1))
    facts = whole.pair(0, 1)
    assert facts.cosine == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    assert facts.signs == pytest.approx(np.mean(one * two > 0))
    assert whole.norms == pytest.approx([np.linalg.norm(one), np.linalg.norm(two)])


def test_some_rows_stand_for_all() -> None:
    layers = [layer(0, 400, 30, 4), layer(0, 400, 30, 4)]
    layers[1].up[:] += np.random.default_rng(1).standard_normal((400, 4))
    everything, some = (geometry(layers, seen).pair(0, 1) for seen in (ALL, 6000))
    assert (rows_seen((400, 30), ALL), rows_seen((400, 30), 6000), rows_seen((400, 30), 1)) == (400, 200, 1)
    assert some.signs == pytest.approx(everything.signs, abs=0.02)
    assert some.signs != everything.signs
    assert some.cosine == everything.cosine
    assert entries_seen(10**6) < entries_seen(100) <= entries_seen(1)


def test_directions_that_are_not_there_do_not_count() -> None:
    """Factors of rank 3 whose product has rank 1, and an update that is zero."""
    one, zero = layer(0, rank=3), layer(1)
    one.up[:, 1:] = one.up[:, :1]
    zero.up[:] = 0
    found = geometry([one, layer(2), zero], ALL)
    assert found.ranks[0, 1] == 1
    assert found.pair(0, 1).outputs_chance == pytest.approx(2 / 9)
    facts = found.pair(0, 2)
    assert (facts.cosine, facts.signs, facts.outputs, facts.ratio, facts.apart) == (None,) * 5
