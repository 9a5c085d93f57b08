"""A base model's folder: its shards, its index, and how its tensors are laid out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.adapters.companions import TEMPLATE_FOLDER
from rsoup.adapters.hub import find_folder
from rsoup.adapters.tensorfile import Header, TensorInfo, read_header
from rsoup.errors import ModelError, reason_of
from rsoup.mixing.placing import OTHER_BASE, Layout
from rsoup.mixing.quantised import held_by, told_by

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INPUT_EMBEDDINGS = ("embed_tokens", "wte", "shared", "word_embeddings", "embed_in", "tok_embeddings", "tokens_embed")
OUTPUT_EMBEDDINGS = ("lm_head", "embed_out", "output", "decoder")
_MAX_JSON = 64 << 20
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
WANTED = (f"{TEMPLATE_FOLDER}/*", "*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken")
CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc", "q_attn")
_TURNED_EXPERTS = ("gpt_oss", "openai_privacy_filter", "aria", "aria_text", "qwen3_vl_moe", "qwen3_vl_moe_text")
"""The models whose files hold experts as (experts, in, out)."""
_UNKNOWN_NAME = (
    f"{OTHER_BASE} If this is it, its files name the layer in a way that rsoup does not know: merge with PEFT "
    "(merge_and_unload)."
)
_DAMAGED = "The base is damaged or was not copied whole: copy or download it again."


@dataclass(frozen=True)
class BaseModel:
    """A model as transformers saves it; ``where`` tells each tensor's shard, ``index`` is the file that lists them."""

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[Header, ...]
    where: Mapping[str, Header]
    index: Mapping[str, Any] | None

    @property
    def configs(self) -> list[Mapping[str, Any]]:
        """The configurations of the whole model and of the language model in it."""
        inner = [self.config.get(key) for key in ("text_config", "llm_config")]
        return [self.config, *(config for config in inner if isinstance(config, dict))]

    @property
    def ties_embeddings(self) -> bool:
        """Whether the input embeddings are the output's too: as the configuration says, else if there are no others."""
        for config in self.configs:
            if isinstance(config.get("tie_word_embeddings"), bool):
                return bool(config["tie_word_embeddings"])
        return not any(name.rsplit(".", 2)[-2:-1] == [head] for name in self.where for head in OUTPUT_EMBEDDINGS)

    def info(self, tensor: str) -> TensorInfo:
        """Return where a tensor lies in its shard."""
        return self.where[tensor].tensors[tensor]

    def companions(self) -> list[Path]:
        """Return the files beside the weights: configurations, tokenizer, chat template."""
        places = [*self.folder.iterdir(), *(self.folder / TEMPLATE_FOLDER).glob("*.jinja")]
        files = sorted(path for path in places if path.is_file())
        return [path for path in files if not path.name.endswith(_WEIGHT_SUFFIXES)]


def read_base(source: str | Path) -> BaseModel:
    """Read the layout of a base model from a folder or a hub id; a quantised or pickled one is refused."""
    folder = find_folder(source, WANTED)
    config = _read_json(folder / "config.json")
    _refuse_quantised(folder, told_by(config))
    index = None if (folder / SINGLE_FILE).exists() else _read_index(folder)
    names = [SINGLE_FILE] if index is None else sorted(set(index["weight_map"].values()))
    shards = tuple(read_header(folder / name) for name in names)
    where = {tensor: shard for shard in shards for tensor in shard.tensors}
    if len(where) != sum(len(shard.tensors) for shard in shards):
        raise ModelError(f"{folder}: a tensor is in two shards.", _DAMAGED)
    lacking = sorted(index["weight_map"].keys() - where.keys()) if index else []
    if lacking:
        raise ModelError(f"{folder / INDEX_FILE}: lists {lacking[0]!r:.120}, which is in none of its shards.", _DAMAGED)
    _refuse_quantised(folder, held_by(shards))
    return BaseModel(folder, config, shards, where, index)


def layout_of(base: BaseModel, *, fan_in_fan_out: bool, more: Mapping[str, tuple[int, ...]]) -> Layout:
    """Return the layout of a base's files, with ``more`` tensors that it does not hold.

    Square matrices are (in, out) in the models of transformers with Conv1D layers, whatever ``fan_in_fan_out`` says, as
    in PEFT. ModelError where only a model's own code could tell.
    """
    types = [config.get("model_type") for config in base.configs]
    conv1d = any(kind in CONV1D_MODELS for kind in types)
    turned_experts = any(kind in _TURNED_EXPERTS for kind in types)

    def turned(tensor: str) -> bool:
        if fan_in_fan_out and base.config.get("auto_map"):
            raise ModelError(
                f"{base.folder}: {tensor} is square and the model has its own code (auto_map): whether its update is "
                "to be transposed (fan_in_fan_out) cannot be told.",
                "Set fan_in_fan_out in adapter_config.json to false if the layer is a torch.nn.Linear.",
            )
        return conv1d and tensor.removesuffix(".weight").endswith(_CONV1D_LAYERS)

    shapes = {name: base.info(name).shape for name in base.where} | dict(more)
    return Layout(str(base.folder), shapes, turned, lambda _: turned_experts, _UNKNOWN_NAME)


def _refuse_quantised(folder: Path, how: str | None) -> None:
    if how:
        raise ModelError(
            f"{folder}: is quantised ({how}): its few bits hold no sums, and only its own code reads them.",
            "Give the original float16, bfloat16 or float32 model; quantise what comes out.",
        )


def _read_index(folder: Path) -> dict[str, Any]:
    """Read the index of a base in shards; where a whole file is there too, transformers loads that, and so does rsoup.

    The shards' own headers tell which tensor is where, as in transformers.
    """
    if not (folder / INDEX_FILE).exists():
        raise _no_weights(folder)
    index = _read_json(folder / INDEX_FILE)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{folder / INDEX_FILE}: has no weight_map.", _DAMAGED)
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX_FILE}: names the shard {name!r:.80}, which is no file beside it.", _DAMAGED
            )
    return index


def _no_weights(folder: Path) -> ModelError:
    if any(folder.glob("pytorch_model*.bin")):
        return ModelError(
            f"{folder}: holds its weights as a pickle, which can run code when it is opened; rsoup does not open it.",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(DIR).",
        )
    if any(folder.glob("*.gguf")):
        return ModelError(f"{folder}: holds a GGUF file, which is quantised.", "Merge into the original model.")
    return ModelError(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}.", "Give the folder of a base model.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON:
            raise ModelError(f"{path}: is not there, or is no configuration.", "Give the folder of a base model.")
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # fails on text that could not be written again
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read ({reason_of(problem)}).", "Check the rights.") from problem
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path}: is not valid JSON ({problem}).", _DAMAGED) from problem
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is not a JSON object.", _DAMAGED)
    return content
