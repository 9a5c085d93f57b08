"""Which layers of a language model get an adapter."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from rsoup.recipe import LoraSection

PAPER = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The layers that the paper's code trains (Table 1)."""


def lora_targets(lora: LoraSection, model: Any) -> dict[str, Any]:
    """Return the settings of a ``LoraConfig`` that name a model's layers: the recipe's, else those of the paper.

    A language model without layers of the paper's names gets adapters on all its linear layers. Towers for pictures or
    sound beside it get none: text alone does not train them.
    """
    decoder = _decoder_of(model)
    inside = {name.rpartition(".")[2] for name in _linear(model) if name.startswith(f"{decoder}." if decoder else "")}
    chosen = lora.target_modules
    if chosen is None:
        every = [name for name in inside if model.get_output_embeddings() is None or name != "lm_head"]
        chosen = list(PAPER) if inside.issuperset(PAPER) else [] if lora.target_parameters else every
    towers = _towers(model, decoder, chosen)
    return {
        "target_modules": sorted(chosen),
        **({"exclude_modules": rf"(.*\.)?({'|'.join(map(re.escape, towers))})\..*"} if towers else {}),
        **({"target_parameters": sorted(lora.target_parameters)} if lora.target_parameters else {}),
    }


def order_targets(config: LoraConfig) -> None:
    """Put a configuration's targets in order: PEFT keeps them as a set, which would be written in any order."""
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)


def _linear(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]


def _decoder_of(model: Any) -> str:
    """Return the name of the language model within a model; "" for the model itself."""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def _towers(model: Any, decoder: str, targets: list[str]) -> list[str]:
    """Return the parts beside the language model that have layers of the targets' names."""
    found = set()
    for name in _linear(model):
        if name.startswith(f"{decoder}.") or not any(name.endswith(f".{target}") for target in targets):
            continue
        parts, own = name.split("."), decoder.split(".")
        shared = next((at for at, (one, other) in enumerate(zip(parts, own, strict=False)) if one != other), None)
        if decoder and shared is not None and shared < len(parts) - 1:
            found.add(parts[shared])
    return sorted(found)
