"""Reading adapter folders: what is whole and plain LoRA is read exactly, everything else is refused by name."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mixing.making import DTYPES, SHAPES, make_adapter
from rsoup import mixing
from rsoup.adapters import read_adapter
from rsoup.adapters.tensorfile import map_tensors, read_header, write_tensors
from rsoup.errors import AdapterError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_read_as_the_safetensors_library_reads_them(dtype: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", dtype=dtype)
    expected, found = load_file(path / WEIGHTS), read_adapter(path).tensors()
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.dtype == DTYPES[dtype]
        assert array.tobytes() == expected[name].tobytes()


@given(
    st.dictionaries(st.from_regex(r"[a-z.]{1,8}", fullmatch=True), st.lists(st.integers(1, 4), max_size=3), min_size=1),
    st.sampled_from(sorted(DTYPES)),
)
@settings(max_examples=50, deadline=None)
def test_written_tensors_are_read_back_by_us_and_by_the_library(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]], dtype: str
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}
    write_tensors(path, tensors, {"format": "pt"})
    for found in (map_tensors(read_header(path)), load_file(path)):
        assert {name: (a.shape, a.tobytes()) for name, a in found.items()} == {
            name: (a.shape, a.tobytes()) for name, a in tensors.items()
        }


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        ({"alpha": 6}, 4, 1.5),
        ({"alpha": 6, "use_rslora": True}, 4, 3.0),
        ({"alpha_pattern": {"q_proj": 12}}, 4, 3.0),
        ({"alpha_pattern": {r"^model\.layers\.0\..*q_proj": 2}}, 4, 0.5),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 12}}, 4, 0.5),
        ({"alpha_pattern": {"proj": 12}, "alpha": 4}, 4, 1.0),
    ],
)
def test_the_scale_follows_peft(config: dict[str, Any], rank: int, scale: float, tmp_path: Path) -> None:
    adapter = read_adapter(make_adapter(tmp_path / "a", rank=rank, **config))
    assert adapter.layers["model.layers.0.self_attn.q_proj"].scale == scale


def test_a_layer_multiplies_b_and_a(tmp_path: Path) -> None:
    layer = read_adapter(make_adapter(tmp_path / "a")).layers["model.layers.0.self_attn.q_proj"]
    assert layer.shape == SHAPES["model.layers.0.self_attn.q_proj"] == (layer.up @ layer.down).shape
    assert layer.rank == 2


def test_the_provenance_names_the_adapter(tmp_path: Path) -> None:
    base = {"name": "smol", "sha256": "c" * 64}
    path = make_adapter(
        tmp_path / "folder", provenance={"name": "positive", "base_model": base, "init_sha256": "a" * 64}
    )
    adapter = read_adapter(path)
    assert adapter.name == "positive"
    assert adapter.provenance is not None
    assert (adapter.provenance.base_name, adapter.provenance.base_sha256) == ("smol", "c" * 64)


REFUSED_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"use_dora": True}, "DoRA"),
    ({"lora_bias": True}, "LoRA bias"),
    ({"peft_type": "IA3"}, "IA3"),
    ({"peft_type": "VERA"}, "VERA"),
    ({"peft_type": None}, "peft_type"),
    ({"peft_type": None, "fine_tune_type": "lora", "lora_parameters": {"rank": 8}}, "an adapter of MLX"),
    ({"peft_type": "FOURIERFT"}, "a Fourier transform"),
    ({"peft_type": "NEWKIND"}, "NEWKIND"),
    ({"peft_type": ["LORA"]}, "peft_type"),
    ({"layer_replication": [[0, 2]]}, "replicated layers"),
    ({"alora_invocation_tokens": [1]}, "activated LoRA"),
    ({"use_qalora": True}, "QALoRA"),
    ({"init_lora_weights": "pissa"}, "changed the base's weights"),
    ({"init_lora_weights": "loftq"}, "changed the base's weights"),
    ({"init_lora_weights": []}, "changed the base's weights"),
    ({"use_newlora": True}, "does not know"),
    ({"r": 0}, "at least 1"),
    ({"r": "8"}, "whole number"),
    ({"r": True}, "whole number"),
    ({"r": 3}, "has rank 2, and adapter_config.json says 3"),
    ({"r": 10**400}, "JSON|whole number"),
    ({"lora_alpha": float("nan")}, "finite"),
    ({"lora_alpha": None}, "finite"),
    ({"use_rslora": "yes"}, "true or false"),
    ({"target_modules": []}, "a list of names or a pattern"),
    ({"target_modules": ["v_proj"]}, "not covered by target_modules"),
    ({"target_modules": ".*v_proj"}, "not covered by target_modules"),
    ({"target_modules": "(("}, "not a pattern"),
    ({"exclude_modules": ["down_proj"]}, r"down_proj is excluded"),
    ({"exclude_modules": r".*\.q_proj"}, r"q_proj is excluded"),
    ({"layers_to_transform": [1]}, "is excluded"),
    ({"layers_to_transform": 0, "layers_pattern": "blocks"}, "is excluded"),
    ({"target_modules": [1, 2]}, "a list of names"),
    ({"rank_pattern": {"q_proj": 3}}, "has rank 2, and adapter_config.json says 3"),
    ({"rank_pattern": {"q_proj": -1}}, "at least 1"),
    ({"rank_pattern": ["q_proj"]}, "names with numbers"),
    ({"alpha_pattern": {"(a+)+$": 3}}, "too costly"),
    ({"alpha_pattern": {"[": 3}}, "not a pattern"),
    ({"base_model_name_or_path": {"path": "/etc"}}, "a string"),
    ({"base_model_name_or_path": "a\x1b[2J"}, "a string"),
    ({"base_model_name_or_path": "\ud800"}, "JSON"),
    ({"modules_to_save": "score"}, "a list of names"),
    ({"lora_dropout": "much"}, "finite"),
    ({"layers_to_transform": ["one"]}, "int"),
    ({"auto_mapping": {"parent_library": ["x"]}}, "names of classes"),
    ({"trainable_token_indices": ["a"]}, "token ids"),
    ({"target_parameters": "experts"}, "a list of names"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED_CONFIGS, ids=lambda value: str(value)[:40])
def test_a_configuration_that_cannot_be_mixed_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = make_adapter(tmp_path / "a")
    config = {**json.loads((path / CONFIG).read_text()), **change}
    (path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=message) as caught:
        read_adapter(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"r": ' + "9" * 10_000 + "}", "\x00"])
def test_a_configuration_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    (path / CONFIG).write_text(text)
    with pytest.raises(AdapterError, match=r"adapter_config\.json: is not"):
        read_adapter(path)


def test_an_unknown_setting_is_a_warning(tmp_path: Path) -> None:
    adapter = read_adapter(make_adapter(tmp_path / "a", trainer_note="fast"))
    assert adapter.warnings == (
        f"{tmp_path / 'a' / CONFIG}: the setting 'trainer_note' is not known and was not considered.",
    )


Header = dict[str, Any]


def rewrite(path: Path, change: Callable[[Header], Any]) -> None:
    """Change the JSON header of a safetensors file in place."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    result = change(header)
    text = result if isinstance(result, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def shift(name: str, start: int, end: int) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        offsets = header[name]["data_offsets"]
        header[name]["data_offsets"] = [offsets[0] + start, offsets[1] + end]

    return change


def setting(key: str, value: Any) -> Callable[[Header], None]:
    return lambda header: header[f"{Q_PROJ}.lora_A.weight"].__setitem__(key, value)


def renamed(old: str, new: str) -> Callable[[Header], None]:
    return lambda header: header.__setitem__(new, header.pop(old))


REFUSED_HEADERS: list[tuple[str, Callable[[Header], Any], str]] = [
    ("overlap", shift(f"{Q_PROJ}.lora_A.weight", -4, -4), "overlaps|gap|end at byte"),
    ("beyond", shift(f"{Q_PROJ}.lora_A.weight", 1 << 40, 1 << 40), "gap|end at byte"),
    ("too long", shift(f"{Q_PROJ}.lora_A.weight", 0, 8), "do not make F32"),
    ("negative", setting("data_offsets", [-8, 32]), "impossible offsets"),
    ("backwards", setting("data_offsets", [40, 0]), "impossible offsets"),
    ("terabytes", setting("shape", [1 << 40, 1 << 40]), "do not make F32"),
    ("negative shape", setting("shape", [-2, -5]), "impossible shape"),
    ("float shape", setting("shape", [2.0, 5.0]), "impossible shape"),
    ("deep shape", setting("shape", [1] * 60 + [2, 5]), "impossible shape"),
    ("transposed", setting("shape", [5, 2]), "do not multiply"),
    ("flat", setting("shape", [10]), "only matrices"),
    ("unknown dtype", setting("dtype", "F7"), "unknown dtype"),
    ("dtype list", setting("dtype", ["F32"]), "unknown dtype"),
    ("integers", setting("dtype", "I32"), "dtype I32"),
    ("extra key", setting("strides", [1, 2]), "dtype, shape and data_offsets"),
    ("not an entry", lambda header: header.__setitem__(f"{Q_PROJ}.lora_A.weight", 3), "dtype, shape and data_offsets"),
    ("metadata", lambda header: header.__setitem__("__metadata__", {"a": 1}), "strings to strings"),
    ("metadata text", lambda header: header.__setitem__("__metadata__", {"a": "\ud800"}), "no valid text"),
    ("missing B", renamed(f"{Q_PROJ}.lora_B.weight", f"{Q_PROJ}.lora_C.weight"), r"lora_C\.weight is neither"),
    ("DoRA tensor", renamed(f"{Q_PROJ}.lora_B.weight", f"{Q_PROJ}.lora_magnitude_vector"), "DoRA magnitude"),
    ("no prefix", renamed(f"{Q_PROJ}.lora_B.weight", "q_proj.lora_B.weight"), "needs lora_A.weight and lora_B.weight"),
    ("control characters", renamed(f"{Q_PROJ}.lora_B.weight", "a\x1b[2J"), "unusable name"),
    ("lone surrogate", renamed(f"{Q_PROJ}.lora_B.weight", "a\ud800"), "unusable name"),
    ("twice", lambda header: json.dumps(header).encode()[:-1] + b', "__metadata__": {}}', "is there twice"),
    ("not JSON", lambda header: b"{" * 8, "header is not"),
    ("a list", lambda header: b"[1]" + b" " * 90, "not a JSON object"),
    ("NaN", lambda header: b'{"a": NaN}' + b" " * 90, "NaN is not JSON"),
    ("invalid UTF-8", lambda header: b'{"\xff": 1}' + b" " * 90, "not valid JSON"),
    ("nothing", lambda header: header.clear(), "holds no tensor|end at byte"),
    ("a bomb", lambda header: b"[" + b"{}," * 200_000 + b"{}]", "not a list of tensors"),
    ("a bomb of strings", lambda header: b"[" + b'"ab",' * 200_000 + b'""]', "not a list of tensors"),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in REFUSED_HEADERS], ids=[c[0] for c in REFUSED_HEADERS]
)
def test_a_damaged_header_is_refused(change: Callable[[Header], Any], message: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    rewrite(path / WEIGHTS, change)
    with pytest.raises(AdapterError, match=message) as caught:
        read_adapter(path)
    assert str(path / WEIGHTS) in caught.value.message


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a") / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(AdapterError, match=r"announces a header|end at byte"):
        read_adapter(path.parent)


def test_a_header_that_announces_terabytes_is_refused(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a") / WEIGHTS
    path.write_bytes(struct.pack("<Q", 1 << 42) + path.read_bytes()[8:])
    with pytest.raises(AdapterError, match="announces a header of 4,398,046,511,104 bytes"):
        read_adapter(path.parent)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(dtype: str, value: float, tmp_path: Path) -> None:
    extra = np.zeros((3, 4), DTYPES[dtype])
    extra[2, 1] = value
    name = "base_model.model.score.weight"
    path = make_adapter(tmp_path / "a", dtype=dtype, extra={name: extra}, modules_to_save=["score"])
    with pytest.raises(AdapterError, match=f"tensor {name} holds NaN or infinity"):
        read_adapter(path)


def test_the_largest_finite_values_are_read(tmp_path: Path) -> None:
    for dtype in DTYPES.values():
        info = np.finfo(np.float32) if dtype is np.float32 else None
        largest = info.max if info else (65504 if dtype is np.float16 else 3.3895e38)
        extra = {"base_model.model.score.weight": np.array([[largest]], dtype)}
        adapter = read_adapter(make_adapter(tmp_path / np.dtype(dtype).name, extra=extra, modules_to_save=["score"]))
        assert np.isfinite(adapter.saved["score.weight"].astype(np.float64)).all()


def test_an_empty_tensor_is_refused(tmp_path: Path) -> None:
    extra = {"base_model.model.score.weight": np.zeros((0, 4), np.float32)}
    with pytest.raises(AdapterError, match=r"score\.weight is empty"):
        read_adapter(make_adapter(tmp_path / "a", extra=extra, modules_to_save=["score"]))


def test_an_adapter_without_factors_is_refused(tmp_path: Path) -> None:
    extra = {"base_model.model.score.weight": np.ones((2, 3), np.float32)}
    with pytest.raises(AdapterError, match="holds no LoRA factor"):
        read_adapter(
            make_adapter(tmp_path / "a", shapes={}, extra=extra, modules_to_save=["score"], target_modules=["q"])
        )


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    (path / WEIGHTS).unlink()
    (path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    with pytest.raises(AdapterError, match="is a pickle") as caught:
        read_adapter(path)
    assert "safe_serialization=True" in caught.value.hint


def test_a_folder_of_adapters_names_them(tmp_path: Path) -> None:
    """PEFT saves adapters of other names than default in folders of their own, trainers their checkpoints."""
    for name in ("policy", "reference"):
        make_adapter(tmp_path / "run" / name)
    with pytest.raises(AdapterError, match=r"is no adapter itself; its folders are \(policy, reference\)") as caught:
        read_adapter(tmp_path / "run")
    assert str(tmp_path / "run" / "policy") in caught.value.hint


def test_a_file_of_llama_cpp_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter.gguf").write_bytes(b"GGUF")
    with pytest.raises(AdapterError, match="GGUF"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    (path / name).unlink()
    with pytest.raises(AdapterError, match=name):
        read_adapter(path)


def test_a_pipe_or_a_device_is_not_read(tmp_path: Path) -> None:
    for name, target in ((WEIGHTS, None), (CONFIG, Path("/dev/zero")), ("rsoup.json", Path("/dev/zero"))):
        path = make_adapter(tmp_path / name)
        (path / name).unlink(missing_ok=True)
        if target:
            (path / name).symlink_to(target)
        else:
            os.mkfifo(path / name)
        with pytest.raises(AdapterError, match="is not a"):
            read_adapter(path)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"sha256": "0" * 64}, "written for another"),
        ({"name": 3}, "name is 3"),
        ({"kind": None}, "kind is None"),
        ({"base_model": ["tiny"]}, "base_model"),
        ({"init_sha256": {"a": 1}}, "init_sha256"),
        ({"schema": 9}, "schema 9"),
    ],
)
def test_a_provenance_that_does_not_fit_is_refused(provenance: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=message):
        read_adapter(make_adapter(tmp_path / "a", provenance=provenance))


def test_a_configuration_that_was_changed_since_is_refused_but_not_for_where_its_base_lies(tmp_path: Path) -> None:
    soup = mixing.mix([make_adapter(tmp_path / "a")], [1.0])
    path = mixing.write(soup, tmp_path / "soup")
    config = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "elsewhere"}))
    assert read_adapter(path).config.base_model == "elsewhere"
    (path / CONFIG).write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] + 1}))
    with pytest.raises(AdapterError, match="was written for another adapter_config") as caught:
        read_adapter(path)
    assert "on purpose" in caught.value.hint
    with pytest.raises(AdapterError, match="already there"):
        mixing.write(soup, path)


def test_paths_and_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AdapterError, match="no such folder"):
        read_adapter("a-bare-name")
    with pytest.raises(AdapterError, match="no such folder"):
        read_adapter(str(tmp_path / "missing"))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(AdapterError, match="is a file"):
        read_adapter(file)
