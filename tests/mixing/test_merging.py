"""Merging into a base of a few tensors; the real architectures are in test_peft_oracle.py."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from rsoup import mixing
from rsoup.errors import AdapterError, ModelError, RsoupError
from rsoup.files import weights_sha256

from .making import DTYPES, make_adapter, update_of

Q_PROJ, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def tensors(dtype: str = "F32", seed: int = 9) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens": (11, 5), "lm_head": (11, 5), Q_PROJ: (6, 5), DOWN: (4, 7)}
    found: dict[str, Any] = {f"{k}.weight": rng.standard_normal(s).astype(DTYPES[dtype]) for k, s in shapes.items()}
    return {**found, "model.norm.weight": np.ones(5, DTYPES[dtype]), "model.steps": np.arange(3)}


def make_base(folder: Path, content: Mapping[str, Any] | None = None, *, shards: int = 1, **config: Any) -> Path:
    """Write a base model with its tokenizer, in one file or in shards with an index."""
    folder.mkdir(parents=True)
    content = tensors() if content is None else content
    settings = {"model_type": "llama", "tie_word_embeddings": False, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text(f'{{"from": "{name}"}}')
    if shards == 1:
        save_file(dict(content), folder / "model.safetensors", {"format": "pt"})
        return folder
    names = {key: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(content)}
    for name in set(names.values()):
        save_file({key: content[key] for key in content if names[key] == name}, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def load(folder: Path) -> dict[str, Any]:
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 3])
def test_updates_are_added_and_all_else_is_copied(dtype: str, shards: int, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tensors(dtype), shards=shards)
    soup = mixing.mix([make_adapter(tmp_path / "a")], [1.0])
    before = snapshot(tmp_path)
    report = mixing.merge(soup, base, tmp_path / "out")
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("out")} == before

    old, new = load(base), load(tmp_path / "out")
    assert set(new) == set(old)
    errors = {}
    for key, value in old.items():
        update = update_of(soup.adapter, key.removesuffix(".weight"))
        exact = (value.astype(np.float64) + update).astype(np.float32)
        errors[key] = float(np.abs(exact.astype(value.dtype).astype(np.float64) - exact).max())
        assert new[key].dtype == value.dtype
        np.testing.assert_allclose(new[key].astype(np.float64), exact.astype(value.dtype).astype(np.float64), atol=1e-6)
        if key.removesuffix(".weight") not in soup.adapter.layers:
            assert new[key].tobytes() == value.tobytes()
    assert (report.changed, report.copied) == (2, 4)
    assert report.rounding == pytest.approx(max(errors.values()), rel=1e-3, abs=1e-6)


def test_files_beside_the_weights_are_carried_over(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", shards=2)
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "README.md").write_text("the base's card")
    out = mixing.merge(mixing.mix([make_adapter(tmp_path / "a")], [1.0]), base, tmp_path / "out").folder
    same = set(snapshot(base)) - {"pytorch_model.bin", "README.md"}
    same -= {path.name for path in base.glob("*.safetensors")}
    assert same >= {"config.json", "chat_template.jinja", "model.safetensors.index.json"}
    assert all((out / name).read_bytes() == (base / name).read_bytes() for name in same)
    assert not (out / "pytorch_model.bin").exists()
    assert "library_name: transformers" in (out / "README.md").read_text()
    found = json.loads((out / "rsoup.json").read_text())
    assert found["kind"] == "merged"
    assert found["parents"][0]["name"] == "a"


@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), share=st.floats(0.05, 0.95), rank=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_mixing_then_merging_equals_merging_then_averaging(
    tmp_path_factory: pytest.TempPathFactory, seeds: tuple[int, int], share: float, rank: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    base = make_base(folder / "base")
    paths = [make_adapter(folder / str(i), seed, rank=rank + i) for i, seed in enumerate(seeds)]
    weights = [1 - share, share]
    mixed = load(mixing.merge(mixing.mix(paths, weights, method="cat"), base, folder / "mixed").folder)
    merged = [load(mixing.merge(mixing.mix([path], [1.0]), base, path / "../m" / path.name).folder) for path in paths]
    for key, value in mixed.items():
        average = weights[0] * merged[0][key] + weights[1] * merged[1][key]
        np.testing.assert_allclose(value, average, atol=1e-4)


def test_the_lost_share_is_the_rounding_over_the_update(tmp_path: Path) -> None:
    """An update far below the base's spacing is lost whole; float32 keeps nearly all of a large one."""
    path = make_adapter(tmp_path / "a", alpha=1e-6)
    coarse = make_base(tmp_path / "coarse", tensors("BF16"))
    fine = make_base(tmp_path / "fine")
    soup = mixing.mix([path], [1.0])
    assert mixing.merge(soup, coarse, tmp_path / "out1").lost == pytest.approx(1.0, abs=0.01)
    large = mixing.mix([make_adapter(tmp_path / "b")], [1.0])
    assert mixing.merge(large, fine, tmp_path / "out2").lost < 1e-6


@pytest.mark.parametrize(("prefix", "extra"), [("model.", ""), ("", "transformer.")])
def test_a_base_with_one_leading_part_more_or_less_is_found(prefix: str, extra: str, tmp_path: Path) -> None:
    """Checkpoints of bare models lack the first part of a module's name, those of wrappers have one more."""
    content = {extra + key.removeprefix(prefix): value for key, value in tensors().items()}
    base = make_base(tmp_path / "base", content)
    soup = mixing.mix([make_adapter(tmp_path / "a")], [1.0])
    new = load(mixing.merge(soup, base, tmp_path / "out").folder)
    key = f"{extra}{Q_PROJ.removeprefix(prefix)}.weight"
    np.testing.assert_allclose(new[key], content[key] + update_of(soup.adapter, Q_PROJ), rtol=1e-5)


def test_square_weights_of_conv1d_models_are_transposed(tmp_path: Path) -> None:
    shapes = {"transformer.h.0.attn.c_proj": (5, 5)}
    weight = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes=shapes)], [1.0])
    update = update_of(soup.adapter, "transformer.h.0.attn.c_proj")
    for kind, expected in (("gpt2", weight + update.T), ("llama", weight + update)):
        base = make_base(tmp_path / kind, {"transformer.h.0.attn.c_proj.weight": weight}, model_type=kind)
        new = load(mixing.merge(soup, base, tmp_path / f"out-{kind}").folder)
        np.testing.assert_allclose(new["transformer.h.0.attn.c_proj.weight"], expected, rtol=1e-5)


def test_tensors_of_many_chunks_are_worked_through_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved head, an update and a transposed update, each 32 MB; the output equals whole matrices in float32."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rng, shape = np.random.default_rng(0), (8000, 1000)
    names = ("h.attn.c_attn", "h.mlp.c_proj", "score")
    content = {f"{name}.weight": rng.standard_normal(shape, dtype=np.float32) for name in names}
    head = rng.standard_normal(shape, dtype=np.float32)
    path = make_adapter(
        tmp_path / "a",
        shapes={"h.attn.c_attn": (1000, 8000), "h.mlp.c_proj": (8000, 1000)},
        extra={"base_model.model.score.weight": head},
        modules_to_save=["score"],
    )
    base = make_base(tmp_path / "base", content)
    soup = mixing.mix([path], [1.0])
    tracemalloc.start()
    mixing.merge(soup, base, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    new = load(tmp_path / "out")
    updates = {name: update_of(soup.adapter, name) for name in names[:2]}
    np.testing.assert_allclose(
        new["h.attn.c_attn.weight"], content["h.attn.c_attn.weight"] + updates[names[0]].T, atol=1e-4
    )
    np.testing.assert_allclose(
        new["h.mlp.c_proj.weight"], content["h.mlp.c_proj.weight"] + updates[names[1]], atol=1e-4
    )
    np.testing.assert_array_equal(new["score.weight"], head)


def test_a_base_that_is_not_the_one_trained_on_is_a_warning(tmp_path: Path) -> None:
    base = make_base(tmp_path / "right")
    sha256 = weights_sha256(base)
    wrong = make_base(tmp_path / "wrong", tensors(seed=8))
    known = make_adapter(tmp_path / "a", provenance={"base_model": {"name": "right", "sha256": sha256}})
    assert mixing.merge(mixing.mix([known], [1.0]), base, tmp_path / "out1").warnings == ()
    [warning] = mixing.merge(mixing.mix([known], [1.0]), wrong, tmp_path / "out2").warnings
    assert f"{known} was trained on right with other weights than {wrong} has" in warning
    assert sha256[:12] in warning
    twice = [known, make_adapter(tmp_path / "b", provenance={"base_model": {"name": "right", "sha256": sha256}})]
    [warning] = mixing.merge(mixing.mix(twice, [0.5, 0.5]), wrong, tmp_path / "out3").warnings
    assert warning.startswith(f"{twice[0]} and {twice[1]} were trained on right with other weights than {wrong} has")


@pytest.mark.parametrize(
    ("named", "warns"), [("owner/right", False), ("/models/right/", False), ("owner/other", True), (None, False)]
)
def test_without_a_hash_the_base_is_known_by_its_name(named: str | None, warns: bool, tmp_path: Path) -> None:
    soup = mixing.mix([make_adapter(tmp_path / "a", base_model_name_or_path=named)], [1.0])
    found = mixing.merge(soup, make_base(tmp_path / "right"), tmp_path / "out").warnings
    assert bool(found) is warns
    assert all("could not be verified" in warning for warning in found)
    renamed = make_base(tmp_path / "renamed", _name_or_path="owner/other")
    assert not mixing.merge(soup, renamed, tmp_path / "out2").warnings or named != "owner/other"


def test_a_base_of_links_as_in_the_hub_cache_is_read(tmp_path: Path) -> None:
    blobs = make_base(tmp_path / "blobs")
    (tmp_path / "base").mkdir()
    for path in blobs.iterdir():
        (tmp_path / "base" / path.name).symlink_to(path)
    out = mixing.merge(mixing.mix([make_adapter(tmp_path / "a")], [1.0]), tmp_path / "base", tmp_path / "out").folder
    assert not any(path.is_symlink() for path in out.iterdir())


@pytest.mark.parametrize("changed", ["nothing", "base", "merged", "adapter", "tokenizer", "alpha", "gone"])
def test_the_same_merge_again_is_not_repeated(changed: str, tmp_path: Path) -> None:
    base, adapter = make_base(tmp_path / "base", shards=2), make_adapter(tmp_path / "a")
    first = mixing.merge(mixing.mix([adapter], [1.0]), base, tmp_path / "merged")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "merged").iterdir()}
    if changed == "adapter":
        adapter = make_adapter(tmp_path / "b", seed=8)
    elif changed == "alpha":
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 8}))
    elif changed == "gone":
        (tmp_path / "merged" / "tokenizer.json").unlink()
    elif changed != "nothing":
        place = {"base": "base/model-00001-of-00002.safetensors", "merged": "merged/model-00002-of-00002.safetensors"}
        path = tmp_path / place.get(changed, "base/tokenizer.json")
        path.write_bytes(path.read_bytes())
    soup = mixing.mix([adapter], [1.0])
    if changed == "nothing":
        assert mixing.merge(soup, base, tmp_path / "merged") == first
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "merged").iterdir()} == before
    else:
        with pytest.raises(AdapterError, match="already there"):
            mixing.merge(soup, base, tmp_path / "merged")
        mixing.merge(soup, base, tmp_path / "merged", overwrite=True)
        mixing.merge(soup, base, tmp_path / "again")
        again = load(tmp_path / "again")
        assert all((value == again[key]).all() for key, value in load(tmp_path / "merged").items())
        assert (tmp_path / "merged" / "tokenizer.json").is_file()


def refused(tmp_path: Path, base: Path, message: str, **adapter: Any) -> RsoupError:
    """Merge into ``base``, expect the message, and expect that nothing was written."""
    path = make_adapter(tmp_path / "adapter", **adapter)
    before = snapshot(tmp_path)
    with pytest.raises(RsoupError, match=message) as caught:
        mixing.merge(mixing.mix([path], [1.0]), base, tmp_path / "out")
    assert snapshot(tmp_path) == before
    assert caught.value.hint
    return caught.value


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, make_base(tmp_path / "base", quantization_config={"bits": 4}), "is quantised")


@pytest.mark.parametrize("packed", [".qweight", ".SCB", ".weight_packed"])
def test_a_base_that_only_its_tensors_or_parts_tell_quantised_is_refused(packed: str, tmp_path: Path) -> None:
    inner = {"text_config": {"quantization_config": {"quant_method": "fp8"}}}
    refused(tmp_path, make_base(tmp_path / "base", **inner), r"is quantised \(FP8")
    content = {name: value for name, value in tensors().items() if "q_proj" not in name}
    content[f"{Q_PROJ}{packed}"] = np.zeros((6, 5), np.int32)
    with pytest.raises(ModelError, match="is quantised"):
        mixing.merge(mixing.mix([tmp_path / "adapter"], [1.0]), make_base(tmp_path / "other", content), tmp_path / "o")


def test_a_quantised_tensor_is_refused(tmp_path: Path) -> None:
    content = {**tensors(), f"{Q_PROJ}.weight": np.zeros((6, 5), np.uint8)}
    refused(tmp_path, make_base(tmp_path / "base", content), rf"{Q_PROJ}.weight has dtype U8")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf"])
def test_a_base_without_safetensors_is_refused(name: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "model.safetensors").rename(base / name)
    refused(tmp_path, base, "pickle" if name.endswith(".bin") else "GGUF")


def test_a_base_that_lacks_a_module_is_refused(tmp_path: Path) -> None:
    content = {key: value for key, value in tensors().items() if "q_proj" not in key}
    problem = refused(tmp_path, make_base(tmp_path / "base", content), rf"has no tensor {Q_PROJ}\.weight")
    assert "If this is it" in problem.hint


def test_a_base_of_other_shapes_is_refused(tmp_path: Path) -> None:
    content = {**tensors(), f"{Q_PROJ}.weight": np.zeros((6, 6), np.float32)}
    refused(tmp_path, make_base(tmp_path / "base", content), r"has shape \(6, 6\)")


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
@pytest.mark.parametrize("config", [{"tie_word_embeddings": True}, {"tie_word_embeddings": None}])
@pytest.mark.parametrize("shards", [1, 3])
def test_tied_embeddings_are_untied_for_an_update_of_one_end(
    module: str, config: dict[str, Any], shards: int, tmp_path: Path
) -> None:
    content = {key: value for key, value in tensors().items() if "lm_head" not in key}
    base = make_base(tmp_path / "base", content, shards=shards, **config, text_config={"tie_word_embeddings": True})
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={module: (11, 5)})], [1.0])
    report = mixing.merge(soup, base, tmp_path / "out")
    old, new = content["model.embed_tokens.weight"], load(report.folder)
    changed = old + update_of(soup.adapter, module)
    other = {"lm_head", "model.embed_tokens"} - {module}
    np.testing.assert_allclose(new[f"{module}.weight"], changed, atol=1e-6)
    assert new[f"{other.pop()}.weight"].tobytes() == old.tobytes()
    config = json.loads((report.folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    index = json.loads((report.folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(new) == {*content, "lm_head.weight"}
    assert all(name in load_file(report.folder / index[name]) for name in index)
    assert not (report.folder / "model.safetensors").exists()
    assert report.changed == 1
    assert report.copied == len(content) - (module != "lm_head")
    [warning] = [warning for warning in report.warnings if "tie_word" in warning]
    assert "lm_head.weight" in warning
    assert mixing.merge(soup, base, tmp_path / "out") == report


@pytest.mark.parametrize("config", [{"is_encoder_decoder": True}, {"architectures": ["BertForMaskedLM"]}])
def test_ends_that_cannot_be_parted_take_no_update(config: dict[str, Any], tmp_path: Path) -> None:
    content = {key: value for key, value in tensors().items() if "lm_head" not in key}
    base = make_base(tmp_path / "base", content, **config, tie_word_embeddings=True)
    refused(tmp_path, base, "tie", shapes={"model.embed_tokens": (11, 5)})


def test_an_encoder_and_decoder_with_two_matrices_takes_an_update_of_its_head(tmp_path: Path) -> None:
    """T5 1.1 is said to tie its ends, and has a head of its own; one with a single matrix cannot be parted."""
    base = make_base(tmp_path / "base", is_encoder_decoder=True, tie_word_embeddings=True)
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={"lm_head": (11, 5)})], [1.0])
    new, old = load(mixing.merge(soup, base, tmp_path / "out").folder), load(base)
    np.testing.assert_allclose(
        new["lm_head.weight"], old["lm_head.weight"] + update_of(soup.adapter, "lm_head"), atol=1e-6
    )
    assert new["model.embed_tokens.weight"].tobytes() == old["model.embed_tokens.weight"].tobytes()
    other = mixing.mix([make_adapter(tmp_path / "b", shapes={"model.embed_tokens": (11, 5)})], [1.0])
    with pytest.raises(ModelError, match="ties its input and output"):
        mixing.merge(other, base, tmp_path / "other")


@pytest.mark.parametrize("stale", [{"x": "model-00001-of-00002.safetensors"}, {"../x": "/dev/zero"}])
def test_a_whole_file_goes_before_an_index(stale: dict[str, str], tmp_path: Path) -> None:
    """As in transformers."""
    base = make_base(tmp_path / "base")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": stale}))
    save_file({"model.norm.weight": np.zeros(3, np.float32)}, base / "model-00001-of-00002.safetensors")
    soup = mixing.mix([make_adapter(tmp_path / "a")], [1.0])
    out = mixing.merge(soup, base, tmp_path / "out").folder
    assert {path.name for path in out.glob("model*")} == {"model.safetensors"}
    np.testing.assert_allclose(
        load(out)[f"{DOWN}.weight"], tensors()[f"{DOWN}.weight"] + update_of(soup.adapter, DOWN), atol=1e-6
    )


def test_a_shards_own_header_tells_what_it_holds(tmp_path: Path) -> None:
    """An index that names the wrong shard of two, or leaves a tensor out, misleads nobody; the merged one is right."""
    base = make_base(tmp_path / "base", shards=2)
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first, second, *_ = index["weight_map"]
    index["weight_map"][first] = index["weight_map"][second]
    del index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))
    out = mixing.merge(mixing.mix([make_adapter(tmp_path / "a")], [1.0]), base, tmp_path / "out").folder
    places = json.loads((out / path.name).read_text())["weight_map"]
    assert set(places) == set(load(base))
    assert all(name in load_file(out / place) for name, place in places.items())


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    content = {key: value for key, value in tensors().items() if "lm_head" not in key}
    base = make_base(tmp_path / "base", content, tie_word_embeddings=True)
    new = load(mixing.merge(mixing.mix([make_adapter(tmp_path / "a")], [1.0]), base, tmp_path / "out").folder)
    assert "lm_head.weight" not in new
    assert new["model.embed_tokens.weight"].tobytes() == content["model.embed_tokens.weight"].tobytes()


@pytest.mark.parametrize("alike", [True, False])
def test_rows_of_tokens_go_to_both_ends_of_a_base_that_keeps_one_matrix_twice(alike: bool, tmp_path: Path) -> None:
    """As PEFT trains them where ends are tied; a base with two matrices is untied, whatever its configuration says."""
    content = tensors()
    if alike:
        content["lm_head.weight"] = content["model.embed_tokens.weight"].copy()
    rows = np.full((2, 5), 7, np.float32)
    extra = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": rows}
    path = make_adapter(tmp_path / "a", extra=extra, trainable_token_indices=[3, 8])
    base = make_base(tmp_path / "base", content, tie_word_embeddings=True)
    new = load(mixing.merge(mixing.mix([path], [1.0]), base, tmp_path / "out").folder)
    for end in ("model.embed_tokens.weight", "lm_head.weight"):
        expected = content[end].copy()
        if alike or "embed" in end:
            expected[[3, 8]] = 7
        np.testing.assert_array_equal(new[end], expected)


def test_modules_to_save_take_the_place_of_the_bases(tmp_path: Path) -> None:
    head = np.full((11, 5), 0.5, np.float32)
    path = make_adapter(tmp_path / "a", extra={"base_model.model.lm_head.weight": head}, modules_to_save=["lm_head"])
    base = make_base(tmp_path / "base", tensors("BF16"))
    new = load(mixing.merge(mixing.mix([path], [1.0]), base, tmp_path / "out").folder)
    np.testing.assert_array_equal(new["lm_head.weight"], head.astype(DTYPES["BF16"]))


def test_modules_to_save_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    extra = {"base_model.model.score.weight": np.ones((2, 5), np.float32)}
    saved = {"extra": extra, "modules_to_save": ["score"]}
    problem = refused(tmp_path, make_base(tmp_path / "base"), r"has no tensor score\.weight", **saved)
    assert "Save the base with a head" in problem.hint


def test_resized_embeddings_are_refused(tmp_path: Path) -> None:
    base, name = make_base(tmp_path / "base"), "base_model.model.model.embed_tokens.weight"
    rows = len(load_file(base / "model.safetensors")["model.embed_tokens.weight"])
    told = f"has {rows} rows, and the copy in the adapter has {rows + 2}"
    problem = refused(tmp_path, base, told, extra={name: np.ones((rows + 2, 5), np.float32)})
    assert "Resize the base first" in problem.hint
    shutil.rmtree(tmp_path / "adapter")
    refused(tmp_path, base, "differs from the copy", extra={name: np.ones((rows, 5), np.float32)})


def test_a_copy_of_the_bases_embeddings_is_accepted(tmp_path: Path) -> None:
    content = tensors()
    extra = {"base_model.model.model.embed_tokens.weight": content["model.embed_tokens.weight"]}
    path = make_adapter(tmp_path / "a", extra=extra)
    assert mixing.merge(mixing.mix([path], [1.0]), make_base(tmp_path / "base", content), tmp_path / "out").changed == 2


def test_a_sum_beyond_float16_is_refused(tmp_path: Path) -> None:
    content = {**tensors("F16"), f"{Q_PROJ}.weight": np.full((6, 5), 65_000, np.float16)}
    error = refused(tmp_path, make_base(tmp_path / "base", content), "infinity in float16", alpha=20_000)
    assert "q_proj" in error.message or "down_proj" in error.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../base/model.safetensors", "no file beside it"),
        ("/etc/passwd", "no file beside it"),
        ("model.bin", "no file beside it"),
        (3, "no file beside it"),
        ("missing.safetensors", "cannot be read"),
    ],
)
def test_an_index_that_misleads_is_refused(name: Any, message: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", shards=2)
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    path.write_text(json.dumps(index))
    refused(tmp_path, base, message)


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", shards=2)
    path = base / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    refused(tmp_path, base, "model-00002-of-00002")


@pytest.mark.parametrize("place", ["base", "base/out", "adapter", "."])
def test_an_output_on_an_input_is_refused(place: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "in" / "base")
    soup = mixing.mix([make_adapter(tmp_path / "in" / "adapter")], [1.0])
    with pytest.raises(AdapterError, match="is, holds or lies in the input"):
        mixing.merge(soup, base, tmp_path / "in" / place, overwrite=True)


def test_an_unreadable_config_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "config.json").write_text("[]")
    refused(tmp_path, base, "is not a JSON object")


def test_a_missing_base_is_refused(tmp_path: Path) -> None:
    soup = mixing.mix([make_adapter(tmp_path / "a")], [1.0])
    with pytest.raises(RsoupError, match="no such folder"):
        mixing.merge(soup, tmp_path / "missing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        mixing.merge(soup, tmp_path / "empty", tmp_path / "out")
