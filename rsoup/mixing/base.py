"""A base model's folder: its shards, its index, and which tensor a module's update belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.adapters.hub import find_folder
from rsoup.adapters.tensorfile import Header, TensorInfo, read_header
from rsoup.errors import ModelError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INPUT_EMBEDDINGS = ("embed_tokens", "wte", "shared", "word_embeddings", "embed_in", "tok_embeddings", "tokens_embed")
OUTPUT_EMBEDDINGS = ("lm_head", "embed_out", "output", "decoder")
CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""The models whose linear layers are Conv1D, with weights of shape (in, out)."""
_MAX_JSON = 64 << 20
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken")
_DAMAGED = "The base is damaged or was not copied whole: copy or download it again."


@dataclass(frozen=True)
class BaseModel:
    """A model as transformers saves it; ``where`` tells each tensor's shard."""

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[Header, ...]
    where: Mapping[str, Header]

    @property
    def size(self) -> int:
        """The bytes of all shards."""
        return sum(shard.path.stat().st_size for shard in self.shards)

    @property
    def ties_embeddings(self) -> bool:
        """Whether the input embeddings are the output's too: as the configuration says, else if there are no others."""
        for config in (self.config, self.config.get("text_config")):
            if isinstance(config, Mapping) and isinstance(config.get("tie_word_embeddings"), bool):
                return bool(config["tie_word_embeddings"])
        return not any(name.rsplit(".", 2)[-2:-1] == [head] for name in self.where for head in OUTPUT_EMBEDDINGS)

    def info(self, tensor: str) -> TensorInfo:
        """Return where a tensor lies in its shard."""
        return self.where[tensor].tensors[tensor]

    def companions(self) -> list[Path]:
        """Return the files beside the weights: configurations, tokenizer, chat template, index."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return [path for path in files if path.name == INDEX_FILE or not path.name.endswith(_WEIGHT_SUFFIXES)]


def read_base(source: str | Path) -> BaseModel:
    """Read the layout of a base model from a folder or a hub id; a quantised or pickled one is refused."""
    folder = find_folder(source, WANTED)
    config = _read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder}: is quantised (quantization_config); a merge would round the update to its few bits.",
            "Merge into the original float16, bfloat16 or float32 model, then quantise.",
        )
    shards = tuple(read_header(folder / name) for name in _shard_names(folder))
    where = {tensor: shard for shard in shards for tensor in shard.tensors}
    if len(where) != sum(len(shard.tensors) for shard in shards):
        raise ModelError(f"{folder}: a tensor is in two shards.", _DAMAGED)
    _check_index(folder, where)
    return BaseModel(folder, config, shards, where)


def locate(base: BaseModel, modules: Iterable[str]) -> dict[str, str]:
    """Return the base's name of each module, which may have one leading part more or less than the adapter's."""
    modules = list(modules)
    for candidate in _candidates(modules, base.where):
        found = {module: _as_saved(name, base) for module, name in candidate.items()}
        if all(f"{name}.weight" in base.where for name in found.values()):
            return found
    missing = next(module for module in modules if f"{module}.weight" not in base.where)
    raise ModelError(
        f"{base.folder}: has no tensor {missing}.weight, which the adapter updates.{_tied_hint(missing)}",
        "Give the base model that the adapter was trained on.",
    )


def _candidates(modules: Sequence[str], tensors: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the names that modules may have in a checkpoint of the whole model, of its trunk, of a wrapper."""
    yield {module: module for module in modules}
    yield {module: module.partition(".")[2] for module in modules}
    for head in dict.fromkeys(name.partition(".")[0] for name in tensors):
        yield {module: f"{head}.{module}" for module in modules}


def _as_saved(name: str, base: BaseModel) -> str:
    """Return the name that a module has on disk: transformers 5 calls the head of GPT-NeoX lm_head in memory only."""
    renamed = name == "lm_head" and "lm_head.weight" not in base.where and "embed_out.weight" in base.where
    return "embed_out" if renamed else name


def _tied_hint(module: str) -> str:
    if module.rsplit(".", 1)[-1] == "lm_head":
        return " Its output embeddings are tied to the input embeddings, so they cannot take an update of their own."
    return ""


def _shard_names(folder: Path) -> list[str]:
    if (folder / INDEX_FILE).exists():
        return sorted(set(_weight_map(folder).values()))
    if (folder / SINGLE_FILE).exists():
        return [SINGLE_FILE]
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder}: holds its weights as a pickle, which can run code when it is opened; rsoup does not open it.",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(DIR).",
        )
    if any(folder.glob("*.gguf")):
        raise ModelError(f"{folder}: holds a GGUF file, which is quantised.", "Merge into the original model.")
    raise ModelError(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}.", "Give the folder of a base model.")


def _weight_map(folder: Path) -> dict[str, str]:
    content = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{folder / INDEX_FILE}: has no weight_map.", _DAMAGED)
    for name in content.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX_FILE}: names the shard {name!r:.80}, which is no file beside it.", _DAMAGED
            )
    return content


def _check_index(folder: Path, where: Mapping[str, Header]) -> None:
    if not (folder / INDEX_FILE).exists():
        return
    listed = _weight_map(folder)
    for tensor in listed.keys() | where.keys():
        shard = where[tensor].path.name if tensor in where else None
        if listed.get(tensor) != shard:
            raise ModelError(
                f"{folder / INDEX_FILE}: places {tensor!r:.120} in {listed.get(tensor)}; it is in {shard}.", _DAMAGED
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON:
            raise ModelError(f"{path}: is not there, or is no configuration.", "Give the folder of a base model.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read ({problem.strerror}).", "Check the rights.") from problem
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path}: is not valid JSON ({problem}).", _DAMAGED) from problem
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is not a JSON object.", _DAMAGED)
    return content
