"""Mixes as folders: grids that keep their number bounded, weights rounded to them, one folder for one mix."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup import mixing
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.errors import AdapterError
from rsoup.models.rowwise import Mix
from rsoup.serving.soups import MOST, SoupFolders, on_grid, steps_for
from tiny import build_adapter


def test_the_finest_grid_within_the_limit_is_taken() -> None:
    """101 mixes of two, 231 of three in steps of 1/20 (1326 in steps of 1/50), 286 of four in steps of 1/10."""
    assert [steps_for(count) for count in (1, 2, 3, 4)] == [100, 100, 20, 10]
    for count in range(1, 12):
        steps = steps_for(count)
        assert math.comb(steps + count - 1, count - 1) <= MOST


def test_weights_are_rounded_by_largest_remainders() -> None:
    assert on_grid((0.333, 0.333, 0.334), 10) == (0.3, 0.3, 0.4)
    assert on_grid((0.26, 0.74), 10) == (0.3, 0.7)
    assert on_grid((0.3, 0.7), 10) == (0.3, 0.7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda own: sum(own) > 0.1), st.integers(1, 100))
def test_rounded_weights_sum_to_one_and_are_near(given_weights: list[float], steps: int) -> None:
    weights = [own / sum(given_weights) for own in given_weights]
    found = on_grid(weights, steps)
    assert round(sum(found) * steps) == steps
    assert min(found) >= 0
    assert max(abs(one - other) for one, other in zip(found, weights, strict=True)) < 1 / steps + 1e-9


@pytest.fixture
def soups(tmp_path: Path, tiny_model: Path) -> SoupFolders:
    adapters = {name: mixing.read(build_adapter(tmp_path / name, tiny_model, seed)) for seed, name in enumerate("ab")}
    return SoupFolders(adapters, "factors", tmp_path / "soups")


def test_near_weights_share_a_folder_which_holds_the_mix(soups: SoupFolders, tmp_path: Path) -> None:
    path = soups.path(Mix((0.702, 0.298)))
    assert path is not None
    assert path == soups.path(Mix((0.7, 0.3)))
    written = mixing.write(
        mixing.mix(list(soups.adapters.values()), [0.7, 0.3], allow_different_starts=True), tmp_path / "other"
    )
    assert (path / WEIGHTS_FILE).read_bytes() == (written / WEIGHTS_FILE).read_bytes()
    assert soups.path(Mix((0.0, 0.0), 1.0)) is None  # the base itself
    half = soups.path(Mix((0.5, 0.0), 0.5))
    assert half is not None
    layers, whole = mixing.read(half).layers, soups.adapters["a"].layers
    for name, layer in layers.items():
        np.testing.assert_allclose(
            layer.scale * layer.up @ layer.down, 0.5 * whole[name].scale * whole[name].up @ whole[name].down, rtol=1e-5
        )


def test_mixes_of_adapters_that_have_changed_are_removed(soups: SoupFolders, tmp_path: Path, tiny_model: Path) -> None:
    old = soups.path(Mix((0.5, 0.5)))
    assert old is not None
    other = {**soups.adapters, "b": mixing.read(build_adapter(tmp_path / "c", tiny_model, 7))}
    (tmp_path / "soups" / "notes").mkdir()  # not a mix
    new = SoupFolders(other, "factors", tmp_path / "soups")
    assert not old.exists()
    assert new.path(Mix((0.5, 0.5))) != old
    assert (tmp_path / "soups" / "notes").is_dir()


def test_a_negative_weight_is_refused(soups: SoupFolders) -> None:
    with pytest.raises(AdapterError, match="negative weight is on no grid"):
        soups.path(Mix((1.2, -0.2)))
