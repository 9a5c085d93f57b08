"""Where a base model comes from, in which dtype it is held, and what is said when it cannot be loaded."""

from __future__ import annotations

import importlib.util
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rsoup.errors import MissingPackageError, ModelError
from rsoup.files import sha256_file
from rsoup.models.load import (
    load_language_model,
    load_tokenizer,
    model_sha256,
    model_source,
    pick_dtype,
    weights_sha256,
)
from tiny import build_classifier, build_tiny_model

CPU = torch.device("cpu")


def test_a_folder_is_loaded_frozen_in_evaluation_mode(tiny_model: Path) -> None:
    model = load_language_model(str(tiny_model), revision=None, dtype="float32")
    assert not model.model.training
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert model.sha256 == sha256_file(tiny_model / "model.safetensors")
    assert (model.name, model.path) == (str(tiny_model), str(tiny_model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_held_in_the_dtype_asked_for(tiny_model: Path, dtype: str) -> None:
    model = load_language_model(str(tiny_model), revision=None, dtype=dtype)
    assert {parameter.dtype for parameter in model.model.parameters()} == {getattr(torch, dtype)}


def test_auto_is_float32_on_the_cpu_where_exactness_counts() -> None:
    assert pick_dtype("auto", CPU, exact=True) == torch.float32
    assert pick_dtype("bfloat16", CPU, exact=True) == torch.bfloat16


def test_a_relative_path_and_a_bundled_name_are_told_apart(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    assert model_source("local") == str(tiny_model)
    assert model_source("owner/name") == "owner/name"
    assert (Path(model_source("smollm2-135m-instruct")) / "config.json").is_file()
    with pytest.raises(ModelError, match="all-minilm-l6-v2: encodes text, and generates none"):
        model_source("all-minilm-l6-v2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smollm2-135m-instrukt", "Did you mean smollm2-135m-instruct?"),
        ("./absent", "Known: smollm2-135m-instruct."),
        ("absent/folder/deep", "Check the path."),
    ],
)
def test_a_name_that_is_nothing_gets_the_nearest_known_one(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_source(name)
    assert caught.value.message == f"{name}: there is no such model folder."
    assert hint in caught.value.hint


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a model: it has no config\.json"):
        model_source(str(tmp_path))


def test_a_folder_without_a_tokenizer_says_so(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("token*"))
    with pytest.raises(ModelError, match="the folder has no tokenizer") as refused:
        load_tokenizer(str(tmp_path / "model"), None)
    assert "Copy the tokenizer" in refused.value.hint


def test_a_damaged_folder_is_named_with_the_reason(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        load_language_model(str(folder), revision=None, dtype="float32")
    assert caught.value.message.startswith(f"{folder}: cannot be loaded: ")
    assert "\n" not in caught.value.message


def test_weights_that_are_no_safetensors_are_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    (folder / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_language_model(str(folder), revision=None, dtype="float32")


def test_a_hub_id_out_of_reach_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        load_language_model("nobody/nothing", revision=None, dtype="float32")
    assert caught.value.message.startswith("nobody/nothing: is no folder here and not in the hub's cache")
    assert "HF_HUB_OFFLINE" in caught.value.hint


def test_the_hash_of_shards_covers_each_of_them(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    whole = weights_sha256(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model-1.safetensors").write_bytes(b"one")
    (other / "model-2.safetensors").write_bytes(b"three")
    assert whole != weights_sha256(other)


def test_a_model_is_known_by_its_weights(tiny_model: Path) -> None:
    assert model_sha256(str(tiny_model), None) == sha256_file(tiny_model / "model.safetensors")


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """A classifier would get a random output layer over the vocabulary."""
    folder = build_classifier(tmp_path / "classifier")
    with pytest.raises(ModelError, match="lacks the weights cls"):
        load_language_model(str(folder), revision=None, dtype="float32")


def test_a_base_in_four_bits_is_loaded_or_the_package_is_named(tiny_model: Path) -> None:
    if importlib.util.find_spec("bitsandbytes"):
        model = load_language_model(str(tiny_model), revision=None, dtype="auto", quantization="4bit")
        assert model.model.is_quantized
        return
    with pytest.raises(MissingPackageError) as caught:
        load_language_model(str(tiny_model), revision=None, dtype="auto", quantization="4bit")
    assert "model.quantization 4bit needs the package bitsandbytes" in caught.value.message
    assert "pip install bitsandbytes" in caught.value.hint


def test_models_loaded_in_several_threads_leave_tied_weights_tied(tiny_model: Path, tmp_path: Path) -> None:
    tied = build_tiny_model(tmp_path / "tied", seed=1, tie_word_embeddings=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: load_language_model(str(path), revision=None, dtype="float32"), [tied] * 12))
    config = AutoConfig.from_pretrained(tied)
    model = AutoModelForCausalLM.from_config(config)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", lambda content: content.update(model_max_length="128")),
        ("tokenizer.json", lambda content: content["model"].update(vocab={"a": [1]})),
    ],
    ids=["loads and cannot encode", "does not load"],
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, tiny_model: Path, file: str, change: Any) -> None:
    path = Path(shutil.copytree(tiny_model, tmp_path / "m")) / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(str(tmp_path / "m"), None)
