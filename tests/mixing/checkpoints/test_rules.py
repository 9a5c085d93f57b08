"""Each method equals its formula, written here once more in float64 on whole tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.errors import AdapterError
from rsoup.mixing import Options
from rsoup.mixing.checkpoints import RULES, mix_models, reading, write_model

from ..making import DTYPES
from .models import load, make_model, tensors

ONE = "model.x.weight"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 8)


def mixed(folder: Path, contents: Sequence[Any], weights: Sequence[float], **options: Any) -> dict[str, Any]:
    """Mix models of these tensors; the last is the base if ``base`` is true."""
    paths = [make_model(folder / f"m{index}", own) for index, own in enumerate(contents)]
    base = paths.pop() if options.pop("base", False) else None
    return load(write_model(mix_models(paths, weights, base=base, **options), folder / "out"))


def wide(content: Any) -> Any:
    return content.astype(np.float64)


def test_linear_is_what_one_works_out_by_hand(tmp_path: Path) -> None:
    one, two = ({ONE: np.array([[4.0, -2.0], [0.5, 8.0]], np.float32)}, {ONE: np.array([[8, 6], [0.5, 0]], np.float32)})
    found = mixed(tmp_path, [one, two], [0.75, 0.25])
    np.testing.assert_array_equal(found[ONE], [[5.0, 0.0], [0.5, 6.0]])


@given(seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)), share=st.floats(-0.5, 1.5))
@settings(max_examples=10, deadline=None)
def test_linear_equals_its_formula(
    tmp_path_factory: pytest.TempPathFactory, seeds: tuple[int, int], share: float
) -> None:
    one, two = (tensors(seed) for seed in seeds)
    found = mixed(tmp_path_factory.mktemp("m"), [one, two], [1 - share, share], allow_extrapolation=True)
    for name, value in found.items():
        np.testing.assert_allclose(value, (1 - share) * wide(one[name]) + share * wide(two[name]), atol=1e-6)


def test_the_base_is_an_ingredient_of_linear_and_what_task_arithmetic_adds_to(tmp_path: Path) -> None:
    one, two, base = (tensors(seed) for seed in range(3))
    added = mixed(tmp_path / "a", [one, two, base], [0.5, 0.2], method="task_arithmetic", base=True, base_weight=0.3)
    linear = mixed(tmp_path / "b", [one, two, base], [0.5, 0.2], base=True, base_weight=0.3)
    twice = mixed(
        tmp_path / "c", [one, two, base], [1, 1], method="task_arithmetic", base=True, allow_extrapolation=True
    )
    for name in base:
        b, d1, d2 = wide(base[name]), wide(one[name]) - base[name], wide(two[name]) - base[name]
        np.testing.assert_allclose(added[name], b + 0.5 * d1 + 0.2 * d2, atol=1e-6)
        np.testing.assert_allclose(linear[name], added[name], atol=1e-6)
        np.testing.assert_allclose(twice[name], b + d1 + d2, atol=1e-6)


def slerp(one: Any, two: Any, t: float) -> Any:
    """Shoemake's formula; the weighted sum for nearly parallel vectors."""
    cosine = (one * two).sum() / math.sqrt((one**2).sum() * (two**2).sum())
    if abs(cosine) > 0.9995:
        return (1 - t) * one + t * two
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * one + math.sin(t * angle) * two) / math.sin(angle)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_slerp_equals_its_formula(noise: float, tmp_path: Path) -> None:
    one, other = tensors(0), tensors(1)
    two = {name: value + noise * other[name] for name, value in one.items()}
    found = mixed(tmp_path, [one, two], [0.7, 0.3], method="slerp")
    for name, value in found.items():
        np.testing.assert_allclose(value, slerp(wide(one[name]), wide(two[name]), 0.3), atol=1e-6)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_slerp_of_large_tensors_of_any_magnitude_equals_its_formula(size: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, other = (size * rng.standard_normal((70, 300)).astype(np.float32) for _ in range(2))
    found = mixed(tmp_path, [{ONE: one}, {ONE: one + other}], [0.7, 0.3], method="slerp")[ONE]
    np.testing.assert_allclose(found, slerp(wide(one), wide(one + other), 0.3), rtol=1e-6, atol=1e-6 * size)


def test_slerp_of_three_lies_on_the_sphere_of_three_of_one_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = [value / np.linalg.norm(value) for value in rng.standard_normal((3, 4, 5))]
    contents = [{ONE: value.astype(np.float32)} for value in vectors]
    found = mixed(tmp_path, contents, [0.2, 0.3, 0.5], method="slerp")[ONE]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    tangents = []
    for vector in vectors:
        cosine = (found * vector).sum()
        tangents.append(math.acos(cosine) / math.sqrt(1 - cosine**2) * (vector - cosine * found))
    np.testing.assert_allclose(np.einsum("i,ijk->jk", [0.2, 0.3, 0.5], tangents), 0, atol=1e-6)


def test_slerp_with_a_tensor_of_zeros_is_the_weighted_sum(tmp_path: Path) -> None:
    one = {ONE: np.ones((2, 3), np.float32)}
    found = mixed(tmp_path, [one, {ONE: np.zeros((2, 3), np.float32)}], [0.75, 0.25], method="slerp")
    np.testing.assert_array_equal(found[ONE], np.full((2, 3), 0.75))


def ties(models: Sequence[Any], weights: Sequence[float], base: Any, density: float) -> Any:
    """Algorithm 1 of arXiv 2306.01708 on flat vectors, entry by entry."""
    deltas = []
    for model, weight in zip(models, weights, strict=True):
        delta = (model - base) * math.copysign(1, weight)
        kept = max(1, int(density * delta.size))
        order = sorted(range(delta.size), key=lambda i: (-abs(delta[i]), i))[:kept]
        deltas.append([delta[i] if i in set(order) else 0.0 for i in range(delta.size)])
    sizes, result = [abs(weight) for weight in weights], np.array(base, np.float64)
    for entry, column in enumerate(zip(*deltas, strict=True)):
        elected = 1 if math.fsum(w * d for w, d in zip(sizes, column, strict=True)) >= 0 else -1
        agreeing = [(w, d) for w, d in zip(sizes, column, strict=True) if d * elected > 0]
        if agreeing:
            mean = sum(w * d for w, d in agreeing) / sum(w for w, _ in agreeing)
            result[entry] += sum(sizes) * mean
    return result


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.3, 0.7], [1.2, -0.2]])
def test_ties_equals_its_formula(density: float, weights: list[float], tmp_path: Path) -> None:
    contents = [tensors(seed) for seed in range(3)]
    options = {"options": Options(density=density), "allow_extrapolation": True}
    found = mixed(tmp_path, contents, weights, method="ties", base=True, **options)
    for name, value in found.items():
        one, two, base = (wide(own[name]).ravel() for own in contents)
        np.testing.assert_allclose(value.ravel(), ties([one, two], weights, base, density), atol=1e-5)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_ties_keeps_the_first_of_equal_entries(density: float, tmp_path: Path) -> None:
    """As differences of bfloat16 models are often equal, so many more entries would be kept with all of them."""
    rng = np.random.default_rng(0)
    contents = [{ONE: rng.integers(-2, 3, (7, 9)).astype(DTYPES["BF16"])} for _ in range(3)]
    found = mixed(tmp_path, contents, [0.5, 0.5], method="ties", base=True, options=Options(density=density))
    one, two, base = (wide(own[ONE]).ravel() for own in contents)
    np.testing.assert_array_equal(wide(found[ONE]).ravel(), ties([one, two], [0.5, 0.5], base, density))


def test_dare_drops_entries_and_scales_the_others_up(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, base = ({ONE: rng.standard_normal((40, 50)).astype(np.float32)} for _ in range(2))
    found = mixed(tmp_path, [one, base], [1.0], method="dare", base=True, options=Options(density=0.25))
    scaled = (wide(found[ONE]) - base[ONE]) / (wide(one[ONE]) - base[ONE])
    kept = np.abs(scaled) > 1e-3
    assert kept.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(scaled[kept], 4.0, rtol=1e-3)
    assert (found[ONE][~kept] == base[ONE][~kept]).all()


def test_what_dare_drops_depends_on_seed_and_model_and_not_on_the_order(tmp_path: Path) -> None:
    contents = [tensors(seed) for seed in range(3)]
    paths = [make_model(tmp_path / f"m{index}", own) for index, own in enumerate(contents)]

    def found(order: Sequence[int], seed: int, name: str) -> dict[str, Any]:
        weights = [[0.3, 0.7][index] for index in order]
        mix = mix_models(
            [paths[i] for i in order], weights, method="dare", base=paths[2], options=Options(density=0.4, seed=seed)
        )
        return load(write_model(mix, tmp_path / name))

    one, turned, other = found([0, 1], 0, "a"), found([1, 0], 0, "b"), found([0, 1], 1, "c")
    for name, value in one.items():
        np.testing.assert_allclose(value, turned[name], atol=1e-6)
    assert any((value != other[name]).any() for name, value in one.items())
    untouched = [name for name, value in one.items() if (value == contents[2][name]).all()]
    assert not untouched


@pytest.mark.parametrize("method", RULES)
def test_a_mix_of_a_model_with_itself_is_that_model(method: str, tmp_path: Path) -> None:
    one = tensors(0)
    needs = RULES[method].base == "needed"
    options = {"options": Options(density=1.0)} if method in ("ties", "dare") else {}
    contents = [one, one, *([tensors(1)] if needs else [])]
    found = mixed(tmp_path, contents, [0.25, 0.75], method=method, base=needs, **options)
    for name, value in one.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "factors"}, "factors is for adapters, and these are whole models"),
        ({"method": "ties"}, "mixes differences from a base"),
        ({"method": "slerp", "base": True}, "takes no base"),
        ({"base": True}, "--base would do nothing"),
        ({"base_weight": 0.5}, "a base that is not named"),
        ({"options": Options(rank=3)}, "no rank to cut"),
        ({"options": Options(density=0.5)}, "takes no density"),
        ({"method": "ties", "base": True, "options": Options(density=1.5)}, r"not in \(0, 1\]"),
        ({"method": "dare", "base": True, "options": Options(seed=-1)}, "is negative"),
        ({"dtype": "I8"}, "no dtype 'I8'"),
    ],
)
def test_what_does_not_go_with_a_method_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    one = tensors(0)
    contents = [one, one, *([one] if settings.get("base") else [])]
    half = 0.25 if settings.get("base_weight") else 0.5
    with pytest.raises(AdapterError, match=message):
        mixed(tmp_path, contents, [half, half], **settings)
