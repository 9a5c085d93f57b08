"""A preference read from choices between answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsoup.pareto.looking import LEAST, SHARPNESS, posterior, preferred

ANGLES = np.linspace(0, np.pi / 2, 11)
ARC = np.stack(
    [np.cos(ANGLES), np.sin(ANGLES)], axis=1
)  # a front on which every preference has a best point of its own


def clicked(shares, mu, sharpness, count, seed):
    """Return pairs of rows and what a person of that preference, told apart so sharply, chooses."""
    generator = np.random.default_rng(seed)
    pairs = [tuple(generator.choice(len(shares), 2, replace=False).tolist()) for _ in range(count)]
    odds = [sharpness * float((shares[first] - shares[second]) @ mu) for first, second in pairs]
    return pairs, [float(generator.random() < 1 / (1 + math.exp(-own))) for own in odds]


def test_the_posterior_is_the_sum_written_out():
    lattice = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    steps, liked = [(0.4, -0.3), (-0.2, 0.6)], [1.0, 0.5]
    sums = []
    for mu in lattice:
        whole = 0.0
        for sharpness in SHARPNESS:
            chance = 1.0
            for step, own in zip(steps, liked, strict=True):
                first = 1 / (1 + math.exp(-sharpness * (mu[0] * step[0] + mu[1] * step[1])))
                chance *= first**own * (1 - first) ** (1 - own)
            whole += chance
        sums.append(whole)
    found = posterior(lattice, np.array(steps), np.array(liked))
    np.testing.assert_allclose(found, np.array(sums) / sum(sums), rtol=1e-12)


def test_without_choices_everything_is_possible():
    found = preferred(ARC, [], [])
    np.testing.assert_allclose(found.mu, 0.5)
    assert found.interval[:, 0].tolist() == [0.02, 0.98]
    assert not found.known


def test_rewards_that_change_places_change_places_in_the_preference():
    pairs, liked = clicked(ARC, np.array([0.7, 0.3]), 8.0, 20, seed=3)
    one, other = preferred(ARC, pairs, liked), preferred(ARC[:, ::-1], pairs, liked)
    np.testing.assert_allclose(one.mu, other.mu[::-1], rtol=1e-9)
    assert one.best == other.best


def test_the_order_within_a_pair_does_not_matter():
    pairs, liked = clicked(ARC, np.array([0.7, 0.3]), 8.0, 20, seed=3)
    turned = preferred(ARC, [(b, a) for a, b in pairs], [1 - own for own in liked])
    np.testing.assert_allclose(turned.mu, preferred(ARC, pairs, liked).mu, rtol=1e-12)


def test_many_choices_find_the_best_mix():
    mu = np.array([0.3, 0.7])
    found = preferred(ARC, *clicked(ARC, mu, 30.0, 60, seed=0))
    assert found.known
    assert (ARC @ mu).max() - ARC[found.best] @ mu < 0.05
    assert found.interval[0, 0] <= 0.3 <= found.interval[1, 0]
    assert found.agreeing > 0.8 * found.decided


def test_clear_choices_are_too_few_below_the_least():
    pairs = [(0, 10)] * (LEAST - 1)
    assert not preferred(ARC[[0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 10]], pairs, [1.0] * len(pairs)).known


@pytest.mark.parametrize("mu", [0.2, 0.5])
def test_intervals_hold_the_preference_as_often_as_they_say(mu):
    """Of 120 people with the same preference, 95 % are covered; fewer than 108 come by chance once in 200."""
    held = 0
    for seed in range(120):
        low, high = preferred(ARC, *clicked(ARC, np.array([mu, 1 - mu]), 6.0, 30, seed)).interval[:, 0]
        held += low <= mu <= high
    assert held >= 108


def test_what_is_called_known_is_the_best_mix_as_often_as_it_says():
    """Of people of any preference, those told a mix have it within 0.05 of their best in four of five cases or more."""
    generator = np.random.default_rng(5)
    told = right = 0
    for seed in range(150):
        mu = generator.random()
        own = np.array([mu, 1 - mu])
        found = preferred(ARC, *clicked(ARC, own, 2.0 ** generator.uniform(1, 6), 12, seed))
        told += found.known
        right += found.known and (ARC @ own).max() - ARC[found.best] @ own <= 0.05
    assert told > 20
    assert right >= 0.8 * told


def test_intervals_of_three_rewards_hold_the_preference_too():
    generator = np.random.default_rng(1)
    shares = generator.dirichlet([1.0] * 3, 12) ** 0.5
    mu = np.array([0.5, 0.3, 0.2])
    held = sum(
        np.all((found.interval[0] <= mu + 1e-9) & (mu <= found.interval[1] + 1e-9))
        for seed in range(60)
        for found in [preferred(shares, *clicked(shares, mu, 10.0, 30, seed))]
    )
    assert held >= 49  # all three at once: at least 85 %, less what chance takes
