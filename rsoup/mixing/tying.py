"""Embeddings that a model uses at both ends, and an adapter trains at one: they get a tensor for each end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rsoup.adapters import Adapter
from rsoup.adapters.layers import TOKEN_ROWS
from rsoup.adapters.names import canonical
from rsoup.adapters.tensorfile import map_tensors
from rsoup.errors import ModelError
from rsoup.mixing.base import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, BaseModel

HEAD_FILE = "model-head.safetensors"
_KEY = "tie_word_embeddings"


@dataclass(frozen=True)
class Untied:
    """Two ends of a model that get a tensor each: ``new``, where the files hold only ``source``, starts as its copy."""

    new: str | None
    source: str

    @property
    def warning(self) -> str:
        """What is said of it."""
        beside = f"{self.new} beside {self.source}" if self.new else "a matrix for each"
        return (
            "the base uses one matrix for its input and output embeddings, and the adapter trains them apart: the "
            f"merged model has {beside}, and tie_word_embeddings is false."
        )


def untied(base: BaseModel, adapter: Adapter) -> Untied | None:
    """Return what has to be untied in a base for an adapter; ModelError where a model cannot be untied.

    Rows of tokens that were trained in the input embeddings alone belong to both ends, as PEFT has it.
    """
    if not base.ties_embeddings:
        return None
    rows = [name.partition(f".{TOKEN_ROWS}")[0] for name in adapter.saved if TOKEN_ROWS in name]
    trained = [name for name in _trained(adapter) if end_of(name)] + [name for name in rows if end_of(name) == "output"]
    if not trained:
        return None
    ends = {end: _held(base, end) for end in ("input", "output")}
    source = ends["input"] or ends["output"]
    if base.config.get("is_encoder_decoder") and _differ(base, *ends.values()) and not any(map(_is_input, trained)):
        return None  # two matrices already, whatever the configuration says, as in transformers
    if source is None or base.config.get("is_encoder_decoder") or not _has_head(base.config.get("architectures")):
        raise ModelError(
            f"{base.folder}: ties its input and output embeddings, and the adapter trains {trained[0]}; rsoup cannot "
            "part them in a model of this kind.",
            "Keep the adapter beside the base (mix without --into), or untie the embeddings before training.",
        )
    if all(ends.values()):
        return Untied(None, source)
    stem = "language_model." if source.startswith("language_model.") else ""
    lacking = next(name for name in trained if end_of(name) == "input") if ends["output"] else f"{stem}lm_head"
    return Untied(f"{lacking}.weight", source)


def twin(base: BaseModel, tensor: str) -> str | None:
    """Return the tensor of the other end where a base that ties its ends keeps both, alike; as two, they are untied."""
    ends = [_held(base, end) for end in ("input", "output")] if base.ties_embeddings else []
    if tensor not in ends or None in ends or _differ(base, *ends):
        return None
    return ends[1 - ends.index(tensor)]


def _differ(base: BaseModel, one: str | None, other: str | None) -> bool:
    """Tell whether a base holds both of two tensors, and they are not the same."""
    if one is None or other is None:
        return False
    mine, theirs = (map_tensors(base.where[name], only=name)[name] for name in (one, other))
    return mine.dtype != theirs.dtype or not np.array_equal(mine, theirs)


def _is_input(module: str) -> bool:
    return end_of(module) == "input"


def without_tying(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's configuration with its embeddings apart, in the language model's own part too."""
    inner = {key: {**value, _KEY: False} for key, value in config.items() if isinstance(value, dict) and _KEY in value}
    return {**config, **inner, _KEY: False}


def _trained(adapter: Adapter) -> list[str]:
    """Return the modules that an adapter updates or trains whole."""
    whole = [name.removesuffix(".weight") for name in adapter.saved if TOKEN_ROWS not in name]
    return [*(name for name, layer in adapter.layers.items() if not layer.place), *whole]


def _held(base: BaseModel, end: str) -> str | None:
    """Return the tensor of one end of the model, the outermost of its name, if the files hold it."""
    names = [name for name in base.where if name.endswith(".weight") and end_of(name.removesuffix(".weight")) == end]
    return min(names, key=lambda name: (canonical(name).count("."), name), default=None)


def end_of(module: str) -> str | None:
    """Return which end of a model a module is, input or output; None for any other."""
    path, _, last = canonical(module).rpartition(".")
    if last in INPUT_EMBEDDINGS:
        return "input"
    return "output" if last in OUTPUT_EMBEDDINGS and path in ("", "cls.predictions") else None


def _has_head(architectures: Any) -> bool:
    """Tell whether a model has language model heads that may be apart from its embeddings."""
    names = architectures if isinstance(architectures, list) else []
    heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    return not names or any(isinstance(name, str) and name.endswith(heads) for name in names)
