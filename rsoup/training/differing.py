"""Which settings of an adapter that is there differ from a recipe's, as far as they are noted beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import AdapterError
from rsoup.files import read_json
from rsoup.recipe import Recipe, TrainingSection
from rsoup.training.folders import RECIPE

IMMATERIAL = {
    "checkpoint_every",
    "save_every",
    "prompts_per_pass",
    "gradient_checkpointing",
    "report_to",
    "together",
    "gpus",
    "cpus",
    "vllm",
}
"""Settings of a training that decide how it is computed, not what."""
SCHEMA = 1
"""Of an adapter's provenance."""
SHOWN = 3
WORTH = 60
"""Characters of a value that are shown."""
SOURCES = ("task.name", "task.dataset", "task.data", "task.gym", "model.base")
"""Keys in which two recipes differ, rather than two states of one."""


def material(training: TrainingSection) -> dict[str, Any]:
    """Return what decides what a training gives."""
    settings = training.model_dump(exclude=IMMATERIAL)
    if training.sampling == "transformers":  # as in trainings from before there was a choice
        del settings["sampling"]
    return settings


def settings_of(recipe: Recipe, *, trains: bool = True) -> dict[str, Any]:
    """Return the settings that an adapter's provenance notes: numbers and choices, no texts and no paths."""
    lora = {"model": {"lora": recipe.model.lora.model_dump(mode="json")}}
    if not trains:
        return lora
    return {**lora, "training": material(recipe.training), "generation": recipe.generation.model_dump(mode="json")}


def refusal(recipe: Recipe, folder: Path, rewards: Iterable[str] | None) -> tuple[str, str]:
    """Return which settings differ, to be said after "made with other settings, data or base model", and a hint.

    ``folder`` is that of the adapter or its checkpoints; ``rewards`` are those of its training, None of a start.
    """
    noted = _noted(recipe, folder)
    here = _flat(_asked(recipe, rewards))
    found = {key: (noted[key], own) for key, own in here.items() if key in noted and noted[key] != own}
    words = ""
    if found:
        first = [f"{key}: {_shown(there)} -> {_shown(own)}" for key, (there, own) in list(found.items())[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        words = f" (there -> here: {'; '.join([*first, *more])})"
    elif noted:
        words = " (settings noted there are the same: rows, base model, code of rewards or rsoup itself changed)"
    if found.keys() & set(SOURCES) and recipe.output is None:
        return words, f"Recipes called {recipe.name} share this folder: give one another name or an output folder (-o)"
    return words, "Give another output folder (-o)"


def _asked(recipe: Recipe, rewards: Iterable[str] | None) -> dict[str, Any]:
    """Return the part of a recipe that decides an adapter."""
    content = recipe.model_dump(mode="json")
    if rewards is None:
        return {key: content[key] for key in ("seed", "model")}
    content["training"] = {key: value for key, value in content["training"].items() if key not in IMMATERIAL}
    content["rewards"] = {name: content["rewards"][name] for name in rewards if name in content["rewards"]}
    return {key: content[key] for key in ("seed", "task", "model", "rewards", "training", "generation")}


def _noted(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return the settings noted in the run's recipe.yaml, and before them those in the adapter's own provenance."""
    noted: dict[str, Any] = {}
    try:
        content = yaml.safe_load((recipe.folder / RECIPE).read_text(encoding="utf-8"))
        noted |= _flat(content) if isinstance(content, dict) else {}
    except (OSError, ValueError, yaml.YAMLError):
        pass
    try:
        told = read_json(folder / PROVENANCE_FILE, schema=SCHEMA, what="an adapter's provenance", error=AdapterError)
        settings, seed = told["settings"], told["seed"]
    except (AdapterError, KeyError):
        return noted
    return noted | _flat({**settings, "seed": seed}) if isinstance(settings, dict) else noted


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return a mapping with dotted keys in the place of nested ones."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {f"{before}{key}": value}
    return found


def _shown(value: Any) -> str:
    text = " ".join(str("none" if value is None else value).split())
    return text if len(text) <= WORTH else f"{text[:15]}...{text[18 - WORTH :]}"
