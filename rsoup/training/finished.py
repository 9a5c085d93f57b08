"""Which adapters of a run are there: what decides what a training gives, and whether it was made from that."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rsoup.adapters import read_adapter
from rsoup.adapters.reading import PROVENANCE_FILE, WEIGHTS_FILE
from rsoup.errors import AdapterError, RecipeError, see
from rsoup.files import read_json, sha256_file, sha256_json
from rsoup.recipe import Recipe
from rsoup.resolve import Resolved
from rsoup.rewards import reads_rows
from rsoup.training.checkpoint import list_checkpoints, read_state
from rsoup.training.differing import SCHEMA, material, refusal
from rsoup.training.folders import adapter_folder, checkpoint_folder, trajectory_folder
from rsoup.training.writing import lowered_rewards


def start_fingerprint(resolved: Resolved) -> str:
    """Return a hash of everything that decides a run's shared start."""
    recipe, base = resolved.recipe, resolved.base
    return sha256_json(
        {
            "base": base.sha256,
            "settings": base.settings_sha256,
            "lora": recipe.model.lora.model_dump(),
            "start": read_adapter(resolved.start).sha256 if resolved.start else None,
            "seed": recipe.seed,
        }
    )


def training_fingerprint(resolved: Resolved, weights: Mapping[str, float]) -> str:
    """Return a hash of everything that decides what a training gives."""
    recipe = resolved.recipe
    for name in weights:
        if name not in recipe.rewards:
            raise RecipeError(f"The recipe has no reward {name!r}.", f"Its rewards are {', '.join(recipe.rewards)}.")
    used = {name: weight for name, weight in weights.items() if weight}
    return sha256_json(
        {
            "start": start_fingerprint(resolved),
            "dtype": [recipe.model.dtype, recipe.model.quantization],
            "posts": resolved.training_rows_sha256,
            "task": resolved.task.identity(),
            "rewards": {name: resolved.rewards[name].identity for name in used},
            **({"minimized": lowered} if (lowered := lowered_rewards(recipe, used)) else {}),
            "weights": used,
            "training": material(recipe.training),
            "generation": recipe.generation.model_dump(),
            "seed": recipe.seed,
            **_rows_read(resolved, used),
        }
    )


def _rows_read(resolved: Resolved, used: Iterable[str]) -> dict[str, str]:
    """Return a hash of all columns of the training rows, where a reward reads more of them than the post."""
    if not any(reads_rows(name, resolved.recipe.rewards[name]) for name in used):
        return {}
    return {"rows": resolved.training_columns_sha256}


def is_trained(resolved: Resolved, name: str, weights: Mapping[str, float]) -> bool:
    """Tell whether an adapter is finished; AdapterError if it, or a part of it, was made from other inputs."""
    fingerprint = training_fingerprint(resolved, weights)
    checkpoints = checkpoint_folder(resolved.recipe, name)
    if is_done(adapter_folder(resolved.recipe, name), fingerprint, resolved.recipe, weights):
        _clear_up(resolved.recipe, checkpoints, fingerprint, weights)
        return True
    _check_unfinished(resolved.recipe, checkpoints, fingerprint, weights)
    return False


def _clear_up(recipe: Recipe, checkpoints: Path, fingerprint: str, rewards: Iterable[str]) -> None:
    """Remove the checkpoints of a finished training, which a kill just after its end has left."""
    with suppress(AdapterError):
        _check_unfinished(recipe, checkpoints, fingerprint, rewards)
        shutil.rmtree(checkpoints, ignore_errors=True)


def is_done(folder: Path, fingerprint: str, recipe: Recipe, rewards: Iterable[str] | None = None) -> bool:
    """Tell whether a finished adapter made from these inputs is there; AdapterError if it was made from others.

    The error names the settings of the recipe that differ; a start is of no ``rewards``.
    """
    if not folder.exists():
        return False
    found = read_json(folder / PROVENANCE_FILE, schema=SCHEMA, what="an adapter's provenance", error=AdapterError)
    if found.get("fingerprint") != fingerprint:
        words, hint = refusal(recipe, folder, rewards)
        raise AdapterError(
            f"{folder}: is there, made with other settings, data or base model{words}.",
            f"{hint}, or replace it with --overwrite." + see("made-with-other-settings"),
        )
    if found.get("sha256") != sha256_file(folder / WEIGHTS_FILE):
        raise AdapterError(
            f"{folder / WEIGHTS_FILE}: was changed after training.", "Delete the folder and train again."
        )
    read_adapter(folder)  # refuses a configuration that was changed
    return True


def clear(resolved: Resolved, name: str, weights: Mapping[str, float], *, overwrite: bool) -> None:
    """Remove an unfinished training begun with other inputs, if told to, and the trajectory of one that starts over."""
    checkpoints = checkpoint_folder(resolved.recipe, name)
    try:
        _check_unfinished(resolved.recipe, checkpoints, training_fingerprint(resolved, weights), weights)
    except AdapterError:
        if not overwrite:
            raise
        shutil.rmtree(checkpoints)
    if not list_checkpoints(checkpoints):
        shutil.rmtree(trajectory_folder(resolved.recipe, name), ignore_errors=True)


def _check_unfinished(recipe: Recipe, checkpoints: Path, fingerprint: str, rewards: Iterable[str]) -> None:
    for checkpoint in list_checkpoints(checkpoints)[-1:]:
        if read_state(checkpoint).fingerprint != fingerprint:
            words, hint = refusal(recipe, checkpoints, rewards)
            raise AdapterError(
                f"{checkpoints}: holds an unfinished training with other settings, data or base model{words}.",
                f"{hint}, or start over with --overwrite.",
            )
