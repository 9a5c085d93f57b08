"""Properties of every method, over random shapes, dtypes, ranks and numbers of adapters.

RSOUP_EXAMPLES sets the number of examples per property: RSOUP_EXAMPLES=1000 pytest tests/mixing/test_methods.py
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import AdapterError

from .making import make_adapter, relative_error, update_of

EXAMPLES = int(os.environ.get("RSOUP_EXAMPLES", "15"))
FULL = {
    "factors": mixing.Options(),
    "cat": mixing.Options(),
    "svd": mixing.Options(rank=99),
    "slerp": mixing.Options(),
    "ties": mixing.Options(density=1.0, rank=99),
    "dare": mixing.Options(density=1.0, rank=99),
}
# The unit roundoff of each dtype, times a factor for the sums of a few products.
TOLERANCES = {"F32": 2e-6, "F16": 4e-3, "BF16": 3e-2}


@st.composite
def adapter_sets(draw: Any, *, same_rank: bool = False, dtypes: Sequence[str] = ("F32",)) -> list[Adapter]:
    """Draw adapters of one base: shapes in common, ranks, alphas, targets and dtypes each their own."""
    shapes = {
        f"model.layers.{i}.{name}": (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
        for i, name in enumerate(("q_proj", "down_proj", "up_proj"))
    }
    count = draw(st.integers(1, 4))
    common = draw(st.integers(1, 4))
    adapters = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            kept = shapes if same_rank else draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1))
            path = make_adapter(
                Path(folder) / str(index),
                seed=draw(st.integers(0, 10_000)),
                rank=common if same_rank else draw(st.integers(1, 4)),
                alpha=8 if same_rank else draw(st.integers(1, 32)),
                use_rslora=not same_rank and draw(st.booleans()),
                dtype=draw(st.sampled_from(dtypes)),
                shapes={module: shapes[module] for module in kept},
            )
            adapters.append(mixing.read(path))
    return adapters


def simplex(draw: Any, count: int) -> list[float]:
    """Draw weights that sum to 1."""
    parts = [draw(st.integers(1, 20)) for _ in range(count)]
    return [part / sum(parts) for part in parts]


def modules(adapters: Sequence[Adapter]) -> set[str]:
    return {module for adapter in adapters for module in adapter.layers}


def weighted_updates(adapters: Sequence[Adapter], weights: Sequence[float], module: str) -> Any:
    return sum(weight * update_of(adapter, module) for adapter, weight in zip(adapters, weights, strict=True))


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_factors_with_one_adapter_gives_it_back_bit_for_bit(data: st.DataObject) -> None:
    [adapter, *_] = data.draw(adapter_sets(dtypes=tuple(TOLERANCES)))
    found = mixing.mix([adapter], [1.0]).adapter.tensors()
    for name, array in adapter.tensors().items():
        assert found.pop(name).tobytes() == array.tobytes()
    assert not found


@pytest.mark.parametrize("method", mixing.METHODS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_equal_adapters_are_a_fixed_point(method: str, data: st.DataObject) -> None:
    [adapter, *_] = data.draw(adapter_sets())
    count = data.draw(st.integers(1, 4))
    mixed = mixing.mix([adapter] * count, simplex(data.draw, count), method=method, options=FULL[method]).adapter
    for module in adapter.layers:
        assert relative_error(update_of(mixed, module), update_of(adapter, module)) < 3e-6


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_cat_is_the_weighted_sum_of_updates(data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets())
    weights = simplex(data.draw, len(adapters))
    mixed = mixing.mix(adapters, weights, method="cat").adapter
    assert set(mixed.layers) == modules(adapters)
    for module in mixed.layers:
        assert relative_error(update_of(mixed, module), weighted_updates(adapters, weights, module)) < 1e-6
        ranks = [adapter.layers[module].rank for adapter in adapters if module in adapter.layers]
        assert mixed.layers[module].rank == sum(ranks)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_dtype_of_mixed_dtypes_is_float32_and_casts_stay_within_it(data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets(dtypes=tuple(TOLERANCES)))
    dtype = data.draw(st.sampled_from([None, *TOLERANCES]))
    weights = simplex(data.draw, len(adapters))
    mixed = mixing.mix(adapters, weights, method="cat", dtype=dtype).adapter
    for module, layer in mixed.layers.items():
        found = {adapter.layers[module].down.dtype.name for adapter in adapters if module in adapter.layers}
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        expected = names[dtype] if dtype else found.pop() if len(found) == 1 else "float32"
        assert layer.down.dtype.name == layer.up.dtype.name == expected
        magnitude = sum(
            weight
            * abs(adapter.layers[module].scale)
            * (abs(wide(adapter, module, "up")) @ abs(wide(adapter, module, "down")))
            for adapter, weight in zip(adapters, weights, strict=True)
            if module in adapter.layers
        )
        error = np.abs(update_of(mixed, module) - weighted_updates(adapters, weights, module))
        assert (error <= TOLERANCES[{v: k for k, v in names.items()}[expected]] * magnitude + 1e-6).all()


def wide(adapter: Adapter, module: str, factor: str) -> Any:
    return getattr(adapter.layers[module], factor).astype(np.float64)


@pytest.mark.parametrize("method", mixing.METHODS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_order_of_the_adapters_does_not_matter(method: str, data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets(same_rank=method == "factors"))
    weights = simplex(data.draw, len(adapters))
    order = data.draw(st.permutations(range(len(adapters))))
    options = mixing.Options(density=0.6, rank=99) if method in ("ties", "dare") else FULL[method]

    def outcome(order: Sequence[int]) -> Adapter | str:
        """Return the mix, or what slerp says where the updates have no average."""
        chosen, shares = [adapters[i] for i in order], [weights[i] for i in order]
        try:
            return mixing.mix(chosen, shares, method=method, options=options).adapter
        except AdapterError as problem:
            return problem.message

    one, other = outcome(range(len(adapters))), outcome(order)
    if isinstance(one, str) or isinstance(other, str):
        assert method == "slerp"
        assert one == other
        assert "opposite directions" in str(one)
        return
    for module in modules(adapters):
        scale = sum(np.linalg.norm(update_of(adapter, module)) for adapter in adapters)
        assert np.linalg.norm(update_of(one, module) - update_of(other, module)) <= 1e-5 * scale


@pytest.mark.parametrize("method", ["svd", "dare"])
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_full_rank_and_full_density_equal_cat(method: str, data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets())
    weights = simplex(data.draw, len(adapters))
    exact = mixing.mix(adapters, weights, method="cat").adapter
    soup = mixing.mix(adapters, weights, method=method, options=FULL[method])
    for module in exact.layers:
        scale = sum(np.linalg.norm(update_of(adapter, module)) for adapter in adapters)
        assert np.linalg.norm(update_of(soup.adapter, module) - update_of(exact, module)) <= 2e-6 * scale


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_svd_is_the_best_of_its_rank_and_reports_what_it_cut(data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets())
    weights = simplex(data.draw, len(adapters))
    rank = data.draw(st.integers(1, 5))
    soup = mixing.mix(adapters, weights, method="svd", options=mixing.Options(rank=rank))
    for module in soup.adapter.layers:
        exact = weighted_updates(adapters, weights, module)
        energies = np.linalg.svd(exact, compute_uv=False) ** 2
        cut = energies[rank:].sum() / energies.sum()
        assert soup.discarded.get(module, 0.0) == pytest.approx(cut, abs=1e-6)
        assert relative_error(update_of(soup.adapter, module), exact) == pytest.approx(math.sqrt(cut), abs=2e-3)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_svd_keeps_the_smallest_rank_that_holds_the_energy(data: st.DataObject) -> None:
    adapters = data.draw(adapter_sets())
    weights = simplex(data.draw, len(adapters))
    energy = data.draw(st.floats(0.05, 0.999))
    soup = mixing.mix(adapters, weights, method="svd", options=mixing.Options(energy=energy))
    for module, layer in soup.adapter.layers.items():
        energies = np.linalg.svd(weighted_updates(adapters, weights, module), compute_uv=False) ** 2
        shares = np.cumsum(energies) / energies.sum()
        assert shares[layer.rank - 1] >= energy - 1e-6
        assert layer.rank == 1 or shares[layer.rank - 2] < energy + 1e-6


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_slerp_of_two_follows_the_great_circle(data: st.DataObject) -> None:
    one, other = (data.draw(adapter_sets(same_rank=True))[0] for _ in range(2))
    t = data.draw(st.floats(0.01, 0.99))
    shared = [m for m in one.layers if m in other.layers and one.layers[m].shape == other.layers[m].shape]
    if len(shared) != len(one.layers):
        return
    pairs = {module: (update_of(one, module), update_of(other, module)) for module in shared}
    angles = {
        module: math.acos(np.clip((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
        for module, (a, b) in pairs.items()
    }
    if max(angles.values()) > math.pi - 1e-2:
        return
    mixed = mixing.mix([one, other], [1 - t, t], method="slerp").adapter
    for module, (a, b) in pairs.items():
        angle = angles[module]
        if angle > 1e-3:
            expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
            assert relative_error(update_of(mixed, module), expected) < 1e-4


def handmade(tmp_path: Path, name: str, update: Any) -> Adapter:
    """Make an adapter whose only update is the given 2 x 2 matrix."""
    path = make_adapter(tmp_path / name, rank=2, alpha=2, shapes={"q_proj": (2, 2)})
    adapter = mixing.read(path)
    layer = adapter.layers["q_proj"]
    new = type(layer)(layer.kind, np.eye(2, dtype=np.float32), np.array(update, np.float32), 1.0)
    return Adapter(name, path, adapter.config, {"q_proj": new})


def test_slerp_of_three_orthogonal_unit_updates(tmp_path: Path) -> None:
    """By symmetry the average of three orthogonal unit vectors is their sum over sqrt(3)."""
    matrices = ([[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]])
    adapters = [handmade(tmp_path, str(i), matrix) for i, matrix in enumerate(matrices)]
    mixed = mixing.mix(adapters, [1 / 3, 1 / 3, 1 / 3], method="slerp").adapter
    np.testing.assert_allclose(update_of(mixed, "q_proj"), np.array([[1, 1], [1, 0]]) / math.sqrt(3), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_slerp_refuses_updates_without_an_average(count: int, tmp_path: Path) -> None:
    """One update against the opposite of ``count`` others: they lie on one line, and no great circle joins them."""
    one = handmade(tmp_path, "one", [[1, 2], [3, 4]])
    others = [handmade(tmp_path, f"other{i}", [[-1, -2], [-3, -4]]) for i in range(count)]
    weights = [1 / (count + 1)] * (count + 1)
    with pytest.raises(AdapterError, match="q_proj: Under slerp, updates that point in opposite directions"):
        mixing.mix([one, *others], weights, method="slerp")


def test_slerp_of_many_keeps_the_length_of_unit_updates(tmp_path: Path) -> None:
    """The average of unit vectors is one, at equal angles to those of equal weight."""
    matrices = np.random.default_rng(3).standard_normal((5, 2, 2)) + 1
    units = [matrix / np.linalg.norm(matrix) for matrix in matrices]
    adapters = [handmade(tmp_path, str(i), matrix) for i, matrix in enumerate(units)]
    mixed = update_of(mixing.mix(adapters, [0.2] * 5, method="slerp").adapter, "q_proj")
    assert np.linalg.norm(mixed) == pytest.approx(1.0, abs=1e-5)
    tangents = []
    for unit in units:
        angle = math.acos(np.clip((mixed * unit).sum(), -1, 1))
        tangents.append(angle / math.sin(angle) * (unit - math.cos(angle) * mixed))
    np.testing.assert_allclose(sum(tangents), 0, atol=1e-5)


def test_ties_trims_elects_and_averages(tmp_path: Path) -> None:
    """Trimmed to half, the updates are [[4, -2], [0, 0]] and [[-1, 0], [3, 0]].

    The elected signs are + (4 against -1), -, +; the means of the entries that agree 4, -2, 3.
    """
    one = handmade(tmp_path, "one", [[4, -2], [1, 0.5]])
    other = handmade(tmp_path, "other", [[-1, 0.1], [3, 0.2]])
    mixed = mixing.mix([one, other], [0.5, 0.5], method="ties", options=mixing.Options(density=0.5)).adapter
    np.testing.assert_allclose(update_of(mixed, "q_proj"), [[4, -2], [3, 0]], atol=1e-5)


def test_ties_weighs_the_agreeing_updates(tmp_path: Path) -> None:
    """Where both agree, 0.25 * 4 + 0.75 * 8 = 7; where they do not, the heavier wins alone."""
    one = handmade(tmp_path, "one", [[4, 4], [0, 0]])
    other = handmade(tmp_path, "other", [[8, -8], [0, 0]])
    mixed = mixing.mix([one, other], [0.25, 0.75], method="ties", options=mixing.Options(density=1.0)).adapter
    np.testing.assert_allclose(update_of(mixed, "q_proj"), [[7, -8], [0, 0]], atol=1e-5)


def test_dare_keeps_a_share_of_the_entries_and_their_sum_in_the_mean(tmp_path: Path) -> None:
    shape = (120, 100)
    path = make_adapter(tmp_path / "a", rank=4, alpha=4, shapes={"q_proj": shape})
    options = [mixing.Options(density=0.25, rank=100, seed=seed) for seed in range(2)]
    exact = update_of(mixing.read(path), "q_proj")
    first, second = (
        update_of(mixing.mix([path], [1.0], method="dare", options=option).adapter, "q_proj") for option in options
    )
    kept = np.abs(first) > 1e-4
    assert kept.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(first[kept], 4 * exact[kept], atol=1e-3)
    assert np.abs(first - second).max() > 1
    again = mixing.mix([path], [1.0], method="dare", options=options[0]).adapter
    np.testing.assert_array_equal(update_of(again, "q_proj"), first)


def test_randomised_svd_is_near_the_best_of_its_rank(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(i), i, rank=3, shapes={"q_proj": (150, 140)}) for i in range(2)]
    full = mixing.mix(paths, [0.5, 0.5], method="ties", options=mixing.Options(rank=140)).adapter
    cut = mixing.mix(paths, [0.5, 0.5], method="ties", options=mixing.Options(rank=6))
    energies = np.linalg.svd(update_of(full, "q_proj"), compute_uv=False) ** 2
    best = energies[6:].sum() / energies.sum()
    assert cut.discarded["q_proj"] == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("method", mixing.METHODS)
def test_the_base_scales_one_adapter_in_proportion(method: str, tmp_path: Path) -> None:
    adapter = mixing.read(make_adapter(tmp_path / "a"))
    mixed = mixing.mix([adapter], [0.25], base_weight=0.75, method=method, options=FULL[method]).adapter
    for module in adapter.layers:
        assert relative_error(update_of(mixed, module), 0.25 * update_of(adapter, module)) < 3e-6


@pytest.mark.parametrize("method", mixing.METHODS)
def test_all_weight_on_the_base_is_no_update(method: str, tmp_path: Path) -> None:
    adapters = [mixing.read(make_adapter(tmp_path / str(i), i)) for i in range(2)]
    mixed = mixing.mix(adapters, [0.0, 0.0], base_weight=1.0, method=method, options=FULL[method]).adapter
    assert all(not update_of(mixed, module).any() for module in mixed.layers)


def test_extrapolation_needs_its_flag_and_is_linear_under_cat(tmp_path: Path) -> None:
    adapters = [mixing.read(make_adapter(tmp_path / str(i), i)) for i in range(2)]
    with pytest.raises(AdapterError, match="negative"):
        mixing.mix(adapters, [1.5, -0.5], method="cat")
    mixed = mixing.mix(adapters, [1.5, -0.5], method="cat", allow_extrapolation=True).adapter
    for module in mixed.layers:
        assert relative_error(update_of(mixed, module), weighted_updates(adapters, [1.5, -0.5], module)) < 1e-6


def test_factors_outside_the_simplex_warns_of_the_square(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    soup = mixing.mix([path], [0.5], allow_extrapolation=True)
    assert any("square" in warning for warning in soup.warnings)
    adapter = mixing.read(path)
    for module in adapter.layers:
        assert relative_error(update_of(soup.adapter, module), 0.25 * update_of(adapter, module)) < 1e-6


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("linear", mixing.Options(), "linear is for whole models"),
        ("cat", mixing.Options(rank=4), "takes no rank"),
        ("factors", mixing.Options(energy=0.9), "takes no energy"),
        ("svd", mixing.Options(density=0.9), "takes no density"),
        ("svd", mixing.Options(rank=0), "below 1"),
        ("svd", mixing.Options(energy=1.5), r"not in \(0, 1\]"),
        ("ties", mixing.Options(density=0.0), r"not in \(0, 1\]"),
        ("dare", mixing.Options(seed=-1), "negative"),
    ],
)
def test_options_are_checked(method: str, options: mixing.Options, message: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    with pytest.raises(AdapterError, match=message):
        mixing.mix([path], [1.0], method=method, options=options)


def test_a_sum_too_large_for_its_dtype_is_refused(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", dtype="F16", alpha=2_000_000)
    with pytest.raises(AdapterError, match="too large for float16"):
        mixing.mix([path], [1.0], method="cat")
    assert mixing.mix([path], [1.0], method="cat", dtype="F32").adapter.layers


@pytest.mark.parametrize("method", mixing.METHODS)
def test_a_sum_too_large_for_float32_is_refused(method: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", alpha=10**15)
    with pytest.raises(AdapterError, match=r"is too large for float32|cannot be decomposed|is too large for float16"):
        mixing.mix([path], [1e30], method=method, options=FULL[method], allow_extrapolation=True, dtype="F16")
