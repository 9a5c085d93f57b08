"""Which models correspond, what their mix carries over, and what is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.errors import ModelError, RsoupError
from rsoup.mixing.checkpoints import are_models, mix_models, write_model

from ..making import DTYPES, make_adapter
from .models import EMBEDDINGS, HEAD, Q_PROJ, load, make_model, snapshot, tensors


def half(*models: Path, **settings: Any) -> Any:
    return mix_models(models, [1 / len(models)] * len(models), **settings)


def average(one: Any, two: Any) -> Any:
    return (one.astype(np.float64) + two.astype(np.float64)) / 2


def refused(tmp_path: Path, *models: Path, message: str, **settings: Any) -> RsoupError:
    before = snapshot(tmp_path)
    with pytest.raises(RsoupError, match=message) as caught:
        write_model(half(*models, **settings), tmp_path / "out")
    assert snapshot(tmp_path) == before
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("shards", [(1, 3), (3, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize("dtypes", [("BF16", "F32"), ("F32", "F16"), ("BF16", "BF16")])
def test_layouts_and_dtypes_may_differ_and_the_firsts_are_kept(
    shards: tuple[int, int], dtypes: tuple[str, str], tmp_path: Path
) -> None:
    one = make_model(tmp_path / "one", 0, shards=shards[0], dtype=dtypes[0])
    two = make_model(tmp_path / "two", 1, shards=shards[1], dtype=dtypes[1])
    before = snapshot(tmp_path)
    out = write_model(half(one, two), tmp_path / "out")
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("out")} == before
    old, other, new = load(one), load(two), load(out)
    assert new.keys() == old.keys()
    for name, value in new.items():
        assert value.dtype == DTYPES[dtypes[0]]
        exact = average(old[name], other[name]).astype(np.float32).astype(value.dtype)
        assert value.tobytes() == exact.tobytes(), name
    assert {path.name for path in out.glob("*.safetensors*")} == {path.name for path in one.glob("*.safetensors*")}
    if shards[0] > 1:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == new.keys()
        assert index["metadata"]["total_size"] == sum(value.nbytes for value in new.values())
        for name, shard in index["weight_map"].items():
            assert name in load_one(out / shard)


def load_one(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def test_a_weight_of_one_gives_the_model_back_bit_for_bit(tmp_path: Path) -> None:
    paths = [make_model(tmp_path / str(seed), seed, dtype="BF16") for seed in range(2)]
    for weights, path in (([1.0, 0.0], paths[0]), ([0.0, 1.0], paths[1])):
        out = write_model(mix_models(paths, weights), tmp_path / f"out-{path.name}")
        assert {k: v.tobytes() for k, v in load(out).items()} == {k: v.tobytes() for k, v in load(path).items()}


def test_a_dtype_can_be_chosen_and_is_noted_in_the_configuration(tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one", 0, torch_dtype="float32"), make_model(tmp_path / "two", 1)
    out = write_model(half(one, two, dtype="BF16"), tmp_path / "out")
    assert {value.dtype for value in load(out).values()} == {np.dtype(DTYPES["BF16"])}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    alone = write_model(mix_models([one], [1.0], dtype="F16"), tmp_path / "alone")
    assert all((value == load(one)[name].astype(np.float16)).all() for name, value in load(alone).items())


# Tied embeddings


def untied(seed: int) -> dict[str, Any]:
    return tensors(seed)


def tied(seed: int) -> dict[str, Any]:
    return {name: value for name, value in tensors(seed).items() if name != HEAD}


@pytest.mark.parametrize("first", ["tied", "untied"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_tied_model_gives_its_input_embeddings_where_another_has_output_embeddings(
    first: str, shards: int, tmp_path: Path
) -> None:
    one = make_model(tmp_path / "tied", tied(0), shards=shards, tie_word_embeddings=True)
    two = make_model(tmp_path / "untied", untied(1), shards=shards)
    mix = half(*((one, two) if first == "tied" else (two, one)))
    assert any("ties its embeddings" in warning for warning in mix.warnings)
    out = write_model(mix, tmp_path / "out")
    found = load(out)
    np.testing.assert_allclose(found[HEAD], average(load(one)[EMBEDDINGS], load(two)[HEAD]), atol=1e-6)
    np.testing.assert_allclose(found[EMBEDDINGS], average(load(one)[EMBEDDINGS], load(two)[EMBEDDINGS]), atol=1e-6)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("both", [True, False])
def test_tied_models_stay_tied_even_if_one_saved_its_embeddings_twice(both: bool, tmp_path: Path) -> None:
    content = tied(0)
    one = make_model(tmp_path / "one", {**content, HEAD: content[EMBEDDINGS]}, tie_word_embeddings=True)
    second = tied(1)
    if both:
        second[HEAD] = second[EMBEDDINGS]
    two = make_model(tmp_path / "two", second, tie_word_embeddings=True)
    out = write_model(half(one, two), tmp_path / "out")
    assert HEAD not in load(out)
    assert (out / "config.json").read_bytes() == (one / "config.json").read_bytes()


def test_output_embeddings_that_only_the_configuration_ties_are_mixed_and_this_is_said(tmp_path: Path) -> None:
    one = make_model(tmp_path / "one", untied(0), tie_word_embeddings=True)
    two = make_model(tmp_path / "two", untied(1))
    mix = half(one, two)
    assert any("counts as untied" in warning for warning in mix.warnings)
    found = load(write_model(mix, tmp_path / "out"))
    np.testing.assert_allclose(found[HEAD], average(load(one)[HEAD], load(two)[HEAD]), atol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_output_embeddings_may_not_be_missing(tmp_path: Path) -> None:
    trunk = {name: value for name, value in untied(0).items() if name not in (HEAD, EMBEDDINGS)}
    one, two = make_model(tmp_path / "one", untied(0)), make_model(tmp_path / "two", trunk)
    refused(tmp_path, one, two, message=r"has no tensor model\.embed_tokens\.weight")
    three = make_model(tmp_path / "three", tied(0))
    refused(tmp_path, one, three, message="no output embeddings")


# Vocabularies


def resized(seed: int, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    changed = {name: rng.standard_normal((rows, 5)).astype(np.float32) for name in (EMBEDDINGS, HEAD)}
    return {**tensors(seed), **changed}


@pytest.mark.parametrize("rows", [(11, 13), (13, 11)])
@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_a_resized_vocabulary_is_refused_or_mixed_as_far_as_it_is_common(
    rows: tuple[int, int], method: str, tmp_path: Path
) -> None:
    one = make_model(tmp_path / "one", resized(0, rows[0]))
    two = make_model(tmp_path / "two", resized(1, rows[1]))
    settings: dict[str, Any] = {"method": method, "base": one} if method == "ties" else {"method": method}
    error = refused(tmp_path, one, two, message="one vocabulary was resized", **settings)
    assert "--common-vocabulary" in error.hint
    found = load(write_model(half(one, two, common_vocabulary=True, **settings), tmp_path / "out"))
    for name in (EMBEDDINGS, HEAD):
        assert found[name].shape == load(one)[name].shape
        if method == "linear":
            np.testing.assert_allclose(found[name][:11], average(load(one)[name][:11], load(two)[name][:11]), atol=1e-6)
        assert (found[name][11:] == load(one)[name][11:]).all()
        assert (found[name][:11] != load(one)[name][:11]).any()


def with_tokens(folder: Path, tokens: list[str], **content: Any) -> Path:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    path = make_model(folder, **content)
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return path


def test_other_tokenizers_are_refused_and_single_renamed_tokens_told(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(200)]
    one = with_tokens(tmp_path / "one", words)
    refused(tmp_path, one, with_tokens(tmp_path / "two", words[::-1]), message="200 of 200 places")
    renamed = with_tokens(tmp_path / "three", [*words[:150], "<tool>", *words[151:]])
    [warning] = [told for told in half(one, renamed).warnings if "other tokens" in told]
    assert "150 is '<tool>' there and 'word150' in" in warning


# What is carried over, and what is told of the others


def test_everything_beside_the_weights_is_the_firsts_and_differences_are_told(tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one", 0, rope_theta=1e6), make_model(tmp_path / "two", 1, rope_theta=1e4)
    (two / "chat_template.jinja").write_text("another")
    (two / "generation_config.json").write_text('{"temperature": 0.6}')
    (one / "merges.txt").write_text("a b")
    (one / "pytorch_model.bin").write_bytes(b"pickle")
    mix = half(one, two)
    told = " ".join(mix.warnings)
    assert "rope_theta (10000.0 against 1000000.0)" in told
    for part in ("chat_template.jinja", "generation_config.json (from, temperature)", "merges.txt (missing there)"):
        assert part in told
    out = write_model(mix, tmp_path / "out")
    for name in ("config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja", "merges.txt"):
        assert (out / name).read_bytes() == (one / name).read_bytes()
    assert not (out / "pytorch_model.bin").exists()


def test_models_that_agree_are_mixed_without_a_word(tmp_path: Path) -> None:
    assert half(make_model(tmp_path / "one", 0), make_model(tmp_path / "two", 1)).warnings == ()


def test_whole_numbers_are_copied_where_they_agree(tmp_path: Path) -> None:
    steps = np.arange(3)
    one = make_model(tmp_path / "one", {**tensors(0), "model.steps": steps})
    two = make_model(tmp_path / "two", {**tensors(1), "model.steps": steps})
    found = load(write_model(half(one, two, dtype="BF16"), tmp_path / "out"))
    assert found["model.steps"].tobytes() == steps.tobytes()
    other = make_model(tmp_path / "other", {**tensors(1), "model.steps": steps + 1})
    refused(tmp_path, one, other, message="model.steps has dtype I64 and differs")


def test_constants_that_older_versions_saved_do_not_matter(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    old = make_model(tmp_path / "old", {**tensors(0), name: np.ones(2, np.float32)})
    new = make_model(tmp_path / "new", 1)
    assert load(write_model(half(old, new), tmp_path / "a"))[name].tobytes() == np.ones(2, np.float32).tobytes()
    assert name not in load(write_model(half(new, old), tmp_path / "b"))


# What is refused


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen3"}, r'has model_type "qwen3", .* "llama"'),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
        ({"num_attention_heads": 8}, "num_attention_heads 8"),
        ({"text_config": {"hidden_size": 3}}, "text_config.hidden_size 3"),
    ],
)
def test_another_architecture_is_refused_by_name(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    one = make_model(tmp_path / "one", num_attention_heads=4, text_config={"hidden_size": 4})
    two = make_model(tmp_path / "two", **{"num_attention_heads": 4, "text_config": {"hidden_size": 4}, **config})
    refused(tmp_path, one, two, message=message)


def test_tensors_that_do_not_correspond_are_refused_by_name(tmp_path: Path) -> None:
    one = make_model(tmp_path / "one")
    more = make_model(tmp_path / "more", {**tensors(0), "model.layers.1.x.weight": np.ones((2, 2), np.float32)})
    refused(tmp_path, one, more, message=r"one has no tensor model\.layers\.1\.x\.weight, which .*more has")
    other = make_model(tmp_path / "other", {**tensors(0), Q_PROJ: np.ones((7, 5), np.float32)})
    refused(tmp_path, one, other, message=r"q_proj.weight has shape \(7, 5\), in .*one \(6, 5\)")


@pytest.mark.parametrize(
    ("config", "content", "told"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, {}, "GPTQ"),
        ({"quantization_config": {"quant_method": "awq"}}, {}, "AWQ"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, {}, "bitsandbytes"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, {}, "FP8"),
        ({}, {"model.q.qweight": np.zeros((2, 2), np.int32)}, "GPTQ or AWQ"),
        ({}, {"model.q.weight.absmax": np.zeros(2, np.float32)}, "bitsandbytes"),
    ],
)
def test_quantised_models_are_refused_by_name(
    config: dict[str, Any], content: dict[str, Any], told: str, tmp_path: Path
) -> None:
    one = make_model(tmp_path / "one", {**tensors(0), **content}, **config)
    refused(tmp_path, one, make_model(tmp_path / "two", 1), message=rf"is quantised \({told}")
    refused(tmp_path, tmp_path / "two", one, message=rf"is quantised \({told}")


def test_fp8_weights_are_refused_without_a_word_in_the_configuration(tmp_path: Path) -> None:
    import ml_dtypes

    content = {**tensors(0), Q_PROJ: np.zeros((6, 5), ml_dtypes.float8_e4m3fn)}
    one = make_model(tmp_path / "one", content)
    refused(tmp_path, one, make_model(tmp_path / "two", 1), message="F8_E4M3")


def test_sums_beyond_a_dtype_are_refused(tmp_path: Path) -> None:
    content = {**tensors(0), Q_PROJ: np.full((6, 5), 60_000, np.float32)}
    one, two = make_model(tmp_path / "one", content), make_model(tmp_path / "two", content)
    with pytest.raises(ModelError, match=f"{Q_PROJ} would hold NaN or infinity in float16"):
        write_model(mix_models([one, two], [1.0, 1.0], allow_extrapolation=True, dtype="F16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_are_told_from_adapters_by_their_files(tmp_path: Path) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    assert are_models([model, model])
    assert not are_models([adapter])
    with pytest.raises(RsoupError, match=r"model is a whole model, and .*adapter an adapter"):
        are_models([adapter, model])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RsoupError, match="empty: holds neither an adapter"):
        are_models([model, tmp_path / "empty"])


HOSTILE = [
    "[]",
    "{",
    "null",
    '"text"',
    "[" * 100_000,
    '{"quantization_config": {"quant_method": [1]}}',
    '{"architectures": {"a": NaN}, "text_config": [1]}',
    '{"tie_word_embeddings": "yes", "text_config": {"tie_word_embeddings": 3}, "model_type": 7}',
    '{"text_config": ' * 300 + "{}" + "}" * 300,
    '{"a": "\\ud800"}',
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"])
def test_hostile_files_end_in_a_refusal_or_a_whole_model(text: str, name: str, tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one", 0), make_model(tmp_path / "two", 1)
    for folder in (one, two):
        (folder / name).write_text(text)
        with suppress(RsoupError):
            write_model(half(one, two), tmp_path / f"out-{folder.name}")
            assert load(tmp_path / f"out-{folder.name}").keys() == load(one).keys()
        partial = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
        assert not partial


def test_templates_in_a_folder_are_carried_over_and_a_stale_index_is_not(tmp_path: Path) -> None:
    one, two = make_model(tmp_path / "one", 0), make_model(tmp_path / "two", 1)
    (one / "additional_chat_templates").mkdir()
    (one / "additional_chat_templates" / "tools.jinja").write_text("with tools")
    (one / "model.safetensors.index.json").write_text('{"weight_map": {"gone": "model-00001-of-00002.safetensors"}}')
    out = write_model(half(one, two), tmp_path / "out")
    assert (out / "additional_chat_templates" / "tools.jinja").read_text() == "with tools"
    assert not (out / "model.safetensors.index.json").exists()
    assert write_model(half(one, two), tmp_path / "out") == out


@pytest.mark.parametrize("first", [0, 1])
def test_tensors_are_found_by_the_names_that_trunks_and_versions_give_them(first: int, tmp_path: Path) -> None:
    """The hub's GPT-2 leaves transformer. out, a fine-tuned one has it; the first gives the mix its names."""
    bare = {name.removeprefix("model."): value for name, value in tensors(0).items()}
    models = [make_model(tmp_path / "bare", bare), make_model(tmp_path / "whole", 1)]
    models = models if first == 0 else models[::-1]
    new = load(write_model(half(*models), tmp_path / "out"))
    assert new.keys() == load(models[0]).keys()
    whole = {name.removeprefix("model."): value for name, value in load(tmp_path / "whole").items()}
    for name, value in new.items():
        plain = name.removeprefix("model.")
        np.testing.assert_allclose(value, average(bare[plain], whole[plain]), atol=1e-6)


def test_a_folder_of_llama_cpp_is_named(tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(RsoupError, match="GGUF"):
        are_models([make_model(tmp_path / "one", 0), tmp_path / "gguf"])
