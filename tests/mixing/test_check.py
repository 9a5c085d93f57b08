from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsoup import mixing

from .making import SHAPES, make_adapter, relative_error, update_of


def test_the_report_equals_sums_over_full_matrices(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(i), i) for i in range(3)]
    adapters, weights = [mixing.read(path) for path in paths], [0.2, 0.3, 0.5]
    report = mixing.check(paths, weights)
    stacked = [np.concatenate([update_of(adapter, module).ravel() for module in SHAPES]) for adapter in adapters]
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in stacked] for a in stacked]
    np.testing.assert_allclose(np.array(report.cosines, float), expected, atol=1e-6)

    mixed = mixing.mix(paths, weights).adapter
    exact = {m: sum(w * update_of(a, m) for a, w in zip(adapters, weights, strict=True)) for m in SHAPES}
    for layer in report.layers:
        distance = relative_error(update_of(mixed, layer.module), exact[layer.module])
        assert layer.factors_distance == pytest.approx(distance, rel=1e-4)
    errors = sum(np.linalg.norm(update_of(mixed, m) - exact[m]) ** 2 for m in SHAPES)
    overall = np.sqrt(errors / sum(np.linalg.norm(exact[m]) ** 2 for m in SHAPES))
    assert report.factors_distance == pytest.approx(overall, rel=1e-4)


def test_equal_adapters_are_parallel_and_factors_is_exact(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    report = mixing.check([path, path])
    np.testing.assert_allclose(np.array(report.cosines, float), 1.0)
    assert report.factors_distance == pytest.approx(0, abs=1e-6)
    assert (report.same_base, report.same_start) == (True, None)


def test_what_cannot_be_mixed_is_told_and_not_raised(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b", rank=3)]
    report = mixing.check(paths)
    assert report.methods["cat"] is None
    assert "has rank 3" in str(report.methods["factors"])
    assert report.factors_distance is None
    assert report.cosines[0][1] is not None


def test_adapters_of_two_bases_get_a_report_without_numbers(tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "a")
    report = mixing.check([one, make_adapter(tmp_path / "b", base_model_name_or_path="other")])
    assert report.same_base is False
    assert all(report.methods.values())
    assert report.layers == []


def test_different_starts_are_told_with_the_numbers(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / start, provenance={"init_sha256": start * 64}) for start in "ab"]
    report = mixing.check(paths)
    assert report.same_start is False
    assert all("started from different adapters" in str(reason) for reason in report.methods.values())
    np.testing.assert_allclose(np.array(report.cosines, float), 1.0)


def test_one_name_with_two_weights_is_two_bases(tmp_path: Path) -> None:
    paths = [
        make_adapter(tmp_path / sha, provenance={"base_model": {"name": "tiny", "sha256": sha * 64}}) for sha in "ab"
    ]
    assert mixing.check(paths).same_base is False


def test_the_facts_of_an_adapter(tmp_path: Path) -> None:
    start = "a" * 64
    path = make_adapter(tmp_path / "a", dtype="BF16", provenance={"init_sha256": start}, rank_pattern={"q_proj": 2})
    [facts] = mixing.check([path]).adapters
    assert (facts.name, facts.base, facts.init_sha256, facts.modules) == ("a", "tiny", start, 2)
    assert (facts.ranks, facts.scales, facts.targets) == ([2], [2.0], ["down_proj", "q_proj"])
    assert facts.dtypes == ["bfloat16"]


def test_the_report_is_json(tmp_path: Path) -> None:
    paths = [
        make_adapter(tmp_path / "a"),
        make_adapter(tmp_path / "b", shapes={"model.layers.0.mlp.down_proj": (4, 7)}),
    ]
    content = json.loads(json.dumps(mixing.check(paths).to_json(), allow_nan=False))
    assert content["schema"] == 1
    cosines = {layer["module"].rsplit(".", 1)[-1]: layer["cosines"][0][1] for layer in content["layers"]}
    assert cosines["q_proj"] is None  # the second adapter leaves it alone
    assert cosines["down_proj"] is not None
