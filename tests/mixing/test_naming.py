"""One layer under several names: in adapters, in bases, in what wrappers leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rsoup import mixing
from rsoup.adapters.names import Names, canonical
from rsoup.errors import AdapterError, ModelError

from .making import make_adapter, update_of
from .test_merging import load, make_base

LAYER = "layers.0.self_attn.q_proj"
STEMS = ("model.", "model.language_model.", "language_model.model.", "")
SHAPE = (6, 5)
EYES = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"


def rng_matrix(seed: int, shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def renamed(adapter: Path, change: Callable[[str], str]) -> Path:
    """Give an adapter's tensors other names."""
    path = adapter / "adapter_model.safetensors"
    save_file({change(name): value for name, value in load_file(path).items()}, path, {"format": "pt"})
    return adapter


@pytest.mark.parametrize("held", STEMS)
@pytest.mark.parametrize("called", STEMS)
def test_an_update_finds_its_layer_under_every_prefix(held: str, called: str, tmp_path: Path) -> None:
    """The tower for pictures beside it has a layer of the same name and shape, and keeps its weights."""
    content = {f"{held}{LAYER}.weight": rng_matrix(1), f"{EYES}.weight": rng_matrix(2)}
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={f"{called}{LAYER}": SHAPE})], [1.0])
    mixing.merge(soup, make_base(tmp_path / "base", content), tmp_path / "out")
    new = load(tmp_path / "out")
    update = update_of(soup.adapter, f"{called}{LAYER}")
    np.testing.assert_allclose(new[f"{held}{LAYER}.weight"], content[f"{held}{LAYER}.weight"] + update, atol=1e-6)
    assert new[f"{EYES}.weight"].tobytes() == content[f"{EYES}.weight"].tobytes()


def test_a_text_layer_that_only_a_tower_has_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", {f"{EYES}.weight": rng_matrix(2)})
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={f"model.{LAYER}": SHAPE})], [1.0])
    with pytest.raises(ModelError, match="has no tensor"):
        mixing.merge(soup, base, tmp_path / "out")


def test_a_name_that_could_be_two_layers_is_refused(tmp_path: Path) -> None:
    content = {f"{stem}.{LAYER}.weight": rng_matrix(1) for stem in ("first", "second")}
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={f"model.{LAYER}": SHAPE})], [1.0])
    with pytest.raises(ModelError, match=r"could be first\..* or second\."):
        mixing.merge(soup, make_base(tmp_path / "base", content), tmp_path / "out")


@pytest.mark.parametrize("method", ["factors", "cat"])
@pytest.mark.parametrize("called", STEMS[1:])
def test_adapters_that_name_the_same_layers_differently_mix_into_one(called: str, method: str, tmp_path: Path) -> None:
    names = (LAYER, "layers.1.mlp.down_proj")
    one = make_adapter(tmp_path / "one", 1, shapes=dict.fromkeys((f"model.{name}" for name in names), SHAPE))
    settings = {"rank_pattern": {f"{called}{names[1]}": 2}, "target_modules": [f"{called}{name}" for name in names]}
    other = make_adapter(tmp_path / "other", 2, shapes=dict.fromkeys(settings["target_modules"], SHAPE), **settings)
    soup = mixing.mix([one, other], [0.25, 0.75], method=method)
    assert set(soup.adapter.layers) == {f"model.{name}" for name in names}
    if method == "cat":
        parts = zip((0.25, 0.75), (mixing.read(one), mixing.read(other)), ("model.", called), strict=True)
        expected = sum(weight * update_of(adapter, f"{stem}{LAYER}") for weight, adapter, stem in parts)
        np.testing.assert_allclose(update_of(soup.adapter, f"model.{LAYER}"), expected, atol=1e-6)
    again = mixing.read(mixing.write(soup, tmp_path / "soup"))
    assert set(again.layers) == set(soup.adapter.layers)


def test_layers_of_one_adapter_alone_take_the_others_prefix(tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "one", 1, shapes={f"model.language_model.{LAYER}": SHAPE})
    other = make_adapter(tmp_path / "other", 2, shapes={"model.layers.0.mlp.down_proj": (4, 7)})
    soup = mixing.mix([one, other], [0.5, 0.5], method="cat")
    assert set(soup.adapter.layers) == {f"model.language_model.{LAYER}", "model.language_model.layers.0.mlp.down_proj"}


LEFTOVERS: dict[str, Callable[[str], str]] = {
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "doubled prefix": lambda name: f"base_model.model.{name}",
    "compiled": lambda name: name.replace("base_model.model.", "_orig_mod.base_model.model."),
    "compiled inside": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "compiled layers": lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
    "parallel": lambda name: f"module.{name}",
    "sharded": lambda name: name.replace("layers.0.", "_fsdp_wrapped_module.layers.0._fsdp_wrapped_module."),
    "checkpointed": lambda name: name.replace("self_attn.", "_checkpoint_wrapped_module.self_attn."),
    "adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "another name": lambda name: name.replace(".weight", ".positive.weight"),
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_what_wrappers_leave_in_names_is_read_as_if_it_were_not_there(leftover: str, tmp_path: Path) -> None:
    plain = mixing.read(make_adapter(tmp_path / "plain"))
    found = mixing.read(renamed(make_adapter(tmp_path / "wrapped"), LEFTOVERS[leftover]))
    assert found.tensors().keys() == plain.tensors().keys()
    assert all(np.array_equal(value, found.tensors()[name]) for name, value in plain.tensors().items())
    soup = mixing.mix([tmp_path / "plain", tmp_path / "wrapped"], [0.5, 0.5])
    assert soup.adapter.layers.keys() == plain.layers.keys()


def test_modules_in_memory_are_read_as_saved(tmp_path: Path) -> None:
    """A raw state dictionary has PEFT's own parts in its names, and the base's modules beside the trained ones."""
    extra = {
        "base_model.model.lm_head.modules_to_save.default.weight": rng_matrix(1),
        "base_model.model.lm_head.original_module.weight": rng_matrix(2),
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default": rng_matrix(3, (2, 5)),
        "base_model.model.model.embed_tokens.token_adapter.base_layer.weight": rng_matrix(4),
    }
    settings = {"modules_to_save": ["lm_head"], "trainable_token_indices": {"embed_tokens": [1, 4]}}
    found = mixing.read(make_adapter(tmp_path / "a", extra=extra, **settings)).saved
    assert set(found) == {"lm_head.weight", "model.embed_tokens.token_adapter.trainable_tokens_delta"}
    np.testing.assert_array_equal(found["lm_head.weight"], rng_matrix(1))


def test_embeddings_that_peft_wrote_twice_are_read_once(tmp_path: Path) -> None:
    """It adds the wrapper's own tensors where the vocabulary was resized and the embeddings are trained whole."""
    head = "base_model.model.lm_head"
    extra = {f"{head}.{inner}weight": rng_matrix(1) for inner in ("", "modules_to_save.")}
    extra[f"{head}.original_module.weight"] = rng_matrix(2)
    found = mixing.read(make_adapter(tmp_path / "a", extra=extra, modules_to_save=["lm_head"])).saved
    assert list(found) == ["lm_head.weight"]
    np.testing.assert_array_equal(found["lm_head.weight"], rng_matrix(1))
    extra[f"{head}.modules_to_save.weight"] = rng_matrix(3)
    with pytest.raises(AdapterError, match=r"two tensors stand for lm_head\.weight"):
        mixing.read(make_adapter(tmp_path / "b", extra=extra, modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (f"base_model.model.model.{LAYER}.lora_A.second.weight", "several"),
        ("base_model.model.model.layers.5.mlp.up_proj.lora_A.second.weight", "several adapters|needs lora_A"),
        ("lora_unet_x.lora_down.weight", "naming of other tools"),
    ],
)
def test_files_of_several_adapters_or_other_tools_are_refused(extra: str, message: str, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "a", extra={extra: rng_matrix(1, (2, 5))})
    with pytest.raises(AdapterError, match=message):
        mixing.read(adapter)


def test_shards_of_an_adapter_are_refused(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "a")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model-00001-of-00001.safetensors")
    with pytest.raises(AdapterError, match="is one of 1 shards"):
        mixing.read(adapter)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "model.layers.0.mlp.experts.3.gate_proj.weight"),
        ("model.layers.0.block_sparse_moe.experts.3.w2.weight", "layers.0.mlp.experts.3.down_proj.weight"),
        ("model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.router.weight"),
        ("embed_out.weight", "lm_head.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("backbone.layers.1.mixer.up_proj.weight", "model.layers.1.mixer.up_proj.weight"),
        ("vision_tower.vision_model.encoder.x.weight", "model.vision_tower.encoder.x.weight"),
    ],
)
def test_names_between_versions_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)
    assert Names([one]).find(other) == one


def test_names_of_different_layers_are_not_one() -> None:
    names = [
        f"model.layers.{i}.{part}.weight" for i in (1, 11) for part in ("mlp.gate_proj", "mlp.experts.1.gate_proj")
    ]
    found = Names([*names, "mtp.layers.0.q_proj.weight", "talker.model.layers.0.q_proj.weight"])
    assert all(found.find(name) == name for name in names)
    assert found.find("model.layers.0.q_proj.weight") is None
    assert found.find("model.layers.1.gate_proj.weight") is None


def test_fan_in_fan_out_that_the_layer_contradicts_is_not_followed(tmp_path: Path) -> None:
    """PEFT sets it to False for a torch.nn.Linear, with a warning, and to True for a Conv1D."""
    square = {f"model.{LAYER}": (5, 5)}
    for model_type, turned in (("llama", False), ("gpt2", True)):
        name = "transformer.h.0.attn.c_attn" if turned else f"model.{LAYER}"
        shapes = {name: (5, 5)} if turned else square
        for flag in (True, False):
            folder = tmp_path / f"{model_type}{flag}"
            base = make_base(folder / "base", {f"{name}.weight": rng_matrix(1, (5, 5))}, model_type=model_type)
            soup = mixing.mix([make_adapter(folder / "a", shapes=shapes, fan_in_fan_out=flag)], [1.0])
            mixing.merge(soup, base, folder / "out")
            update = update_of(soup.adapter, name)
            expected = rng_matrix(1, (5, 5)) + (update.T if turned else update)
            np.testing.assert_allclose(load(folder / "out")[f"{name}.weight"], expected, atol=1e-6)


def test_a_square_layer_of_foreign_code_is_refused_if_it_may_be_turned(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", {f"model.{LAYER}.weight": rng_matrix(1, (5, 5))}, auto_map={"AutoModel": "x.X"})
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes={f"model.{LAYER}": (5, 5)}, fan_in_fan_out=True)], [1.0])
    with pytest.raises(ModelError, match="cannot be told"):
        mixing.merge(soup, base, tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_mapping": {"base_model_class": "X", "parent_library": "a.b", "unsloth_fixed": True}},
        {"use_gradient_checkpointing": "unsloth", "use_cache": True},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "Gaussian"},
        {"lora_alpha": 0},
        {"target_modules": "all-linear"},
        {"layers_pattern": "layers", "layers_to_transform": [0]},
        {"exclude_modules": r".*vision.*"},
    ],
)
def test_settings_that_change_no_update_are_taken(settings: dict[str, Any], tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(seed), seed, **settings) for seed in (1, 2)]
    soup = mixing.mix(adapters, [0.5, 0.5], method="cat")
    again = mixing.read(mixing.write(soup, tmp_path / "soup"))
    for module in soup.adapter.layers:
        parts = [0.5 * update_of(mixing.read(adapter), module) for adapter in adapters]
        np.testing.assert_allclose(update_of(again, module), sum(parts), atol=1e-6)


def test_the_last_part_of_a_name_is_enough_for_modules_to_save(tmp_path: Path) -> None:
    """As in PEFT, where "head" covers lm_head."""
    extra = {"base_model.model.lm_head.weight": rng_matrix(1, (11, 5))}
    adapter = make_adapter(tmp_path / "a", extra=extra, modules_to_save=["head"])
    assert set(mixing.read(adapter).saved) == {"lm_head.weight"}


def test_rows_of_other_tokens_are_not_averaged(tmp_path: Path) -> None:
    extra = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": rng_matrix(1, (2, 5))}
    adapters = [
        make_adapter(tmp_path / str(token), extra=extra, trainable_token_indices=[1, token]) for token in (2, 3)
    ]
    with pytest.raises(AdapterError, match="rows of other tokens"):
        mixing.mix(adapters, [0.5, 0.5])


def test_a_row_beyond_the_base_is_refused(tmp_path: Path) -> None:
    extra = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": rng_matrix(1, (1, 5))}
    soup = mixing.mix([make_adapter(tmp_path / "a", extra=extra, trainable_token_indices=[11])], [1.0])
    with pytest.raises(ModelError, match=r"has 11 rows.*token 11") as caught:
        mixing.merge(soup, make_base(tmp_path / "base"), tmp_path / "out")
    assert "Resize" in caught.value.hint


def test_the_configuration_names_renamed_layers(tmp_path: Path) -> None:
    """What a pattern said of a layer under its old name is said of it under the new one."""
    one = make_adapter(tmp_path / "one", 1, shapes={f"model.{LAYER}": SHAPE})
    old = f"language_model.model.{LAYER}"
    other = make_adapter(tmp_path / "other", 2, shapes={old: SHAPE}, rank=3, r=8, rank_pattern={old: 3}, alpha=3)
    soup = mixing.mix([one, other], [0.0, 1.0], method="cat")
    raw = json.loads((mixing.write(soup, tmp_path / "soup") / "adapter_config.json").read_text())
    assert raw["r"] == 3
    assert mixing.read(tmp_path / "soup").layers[f"model.{LAYER}"].rank == 3


@pytest.mark.parametrize("apart", ["adapter", "base"])
def test_gate_and_up_are_one_matrix_here_and_two_there(apart: str, tmp_path: Path) -> None:
    """The update of one is that of its rows of both: the first rows are the gate's."""
    names = ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    whole = "model.layers.0.mlp.gate_up_proj"
    shapes = dict.fromkeys(names, (4, 5)) if apart == "adapter" else {whole: (8, 5)}
    held = {whole: (8, 5)} if apart == "adapter" else dict.fromkeys(names, (4, 5))
    content = {f"{name}.weight": rng_matrix(seed, shape) for seed, (name, shape) in enumerate(held.items())}
    soup = mixing.mix([make_adapter(tmp_path / "a", shapes=shapes)], [1.0])
    new = load(mixing.merge(soup, make_base(tmp_path / "base", content), tmp_path / "out").folder)
    update = np.concatenate([update_of(soup.adapter, name) for name in shapes])
    old = np.concatenate([content[f"{name}.weight"] for name in held])
    np.testing.assert_allclose(np.concatenate([new[f"{name}.weight"] for name in held]), old + update, atol=1e-5)
