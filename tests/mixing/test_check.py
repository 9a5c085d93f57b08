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


def test_adapters_of_other_ranks_and_targets_are_compared_where_they_meet(tmp_path: Path) -> None:
    q_proj, down_proj = SHAPES
    paths = [
        make_adapter(tmp_path / "a", 0, rank=2),
        make_adapter(tmp_path / "b", 1, rank=3, shapes={down_proj: SHAPES[down_proj]}),
        make_adapter(tmp_path / "c", 2, rank=1, alpha=9),
    ]
    report = mixing.check(paths, [0.2, 0.3, 0.5])
    assert [(pair.a, pair.b) for pair in report.pairs] == [(0, 1), (0, 2), (1, 2)]
    by_module = {layer.module: layer for layer in report.layers}
    assert [pair.cosine is None for pair in by_module[q_proj].pairs] == [True, False, True]
    assert by_module[q_proj].norms[1] == 0
    adapters = [mixing.read(path) for path in paths]
    one, two = (
        np.concatenate([np.broadcast_to(update_of(own, name), SHAPES[name]).ravel() for name in SHAPES])
        for own in adapters[:2]
    )
    assert report.pairs[0].cosine == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    assert report.pairs[0].outputs_chance == pytest.approx(3 / 4)
    assert report.effects["factors"].distance is None
    assert report.effects["svd"].distance is not None
    assert [advice.pair for advice in report.advice if advice.pair] != []


def test_embeddings_and_experts_are_compared_like_all_else(tmp_path: Path) -> None:
    """Of an embedding the inputs are tokens; each expert of a parameter is a module."""
    paths = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        own = {"lora_embedding_A": (2, 11), "lora_embedding_B": (5, 2)}
        extra = {f"base_model.model.model.embed_tokens.{key}": rng.standard_normal(shape) for key, shape in own.items()}
        experts = {"lora_A.weight": (3 * 2, 5), "lora_B.weight": (6, 3 * 2)}
        extra |= {
            f"base_model.model.model.layers.0.mlp.experts.{key}": rng.standard_normal(s) for key, s in experts.items()
        }
        extra = {key: value.astype(np.float32) for key, value in extra.items()}
        targets = {"target_modules": ["embed_tokens", *{name.rsplit(".", 1)[-1] for name in SHAPES}]}
        parameters = {"target_parameters": ["mlp.experts.down_proj"]}
        paths.append(make_adapter(tmp_path / str(seed), seed, extra=extra, **targets, **parameters))
    report = mixing.check(paths)
    adapters = [mixing.read(path) for path in paths]
    modules = {layer.module: layer.pairs[0] for layer in report.layers}
    assert len(modules) == len(SHAPES) + 1 + 3
    for module, pair in modules.items():
        one, two = (update_of(adapter, module) for adapter in adapters)
        assert pair.cosine == pytest.approx(np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two))
    assert modules["model.embed_tokens"].inputs_chance == pytest.approx(2 / 11)


def test_what_is_allowed_is_no_reason_and_no_warning(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / start, provenance={"init_sha256": start * 64}) for start in "ab"]
    allowed = mixing.check(paths, [1.5, -0.5], allow_different_starts=True, allow_extrapolation=True)
    assert set(allowed.methods.values()) == {None}
    assert allowed.warnings == []
    [warning] = mixing.check(paths, [1.5, -0.5]).warnings
    assert "include a negative one" in warning
    assert "--allow-extrapolation" in warning


def test_what_was_trained_whole_is_told_by_its_distance(tmp_path: Path) -> None:
    extra = [{"base_model.model.lm_head.weight": np.full((3, 4), value, np.float32)} for value in (2.0, 1.0)]
    paths = [make_adapter(tmp_path / str(i), i, extra=own, modules_to_save=["lm_head"]) for i, own in enumerate(extra)]
    [saved] = mixing.check(paths).saved
    assert (saved.name, saved.distance) == ("lm_head.weight", pytest.approx(0.5))
