"""One training as a command sees it: from a recipe to an adapter folder, started once, continued, never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from rsoup import __version__
from rsoup.adapters import Adapter, read_adapter
from rsoup.errors import AdapterError, RecipeError
from rsoup.files import read_json, sha256_file, sha256_json, whole_folder, write_json, write_text
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model, load_tokenizer, model_sha256
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.rewards import reward_identity
from rsoup.rewards.scoring import make_scorers
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import load_examples, posts_sha256
from rsoup.training.card import training_card
from rsoup.training.checkpoint import list_checkpoints, read_state
from rsoup.training.loop import METRICS_FILE, Objective, train
from rsoup.training.policy import WEIGHTS_FILE, Policy, fresh_config, read_start

PROVENANCE_FILE = "rsoup.json"
SCHEMA = 1
START = "init"
"""The name of the adapter that all trainings of a run begin from."""


def adapter_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps an adapter."""
    return recipe.folder / "adapters" / name


def checkpoint_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps the checkpoints of an unfinished training."""
    return recipe.folder / "checkpoints" / name


def morl_name(weights: Mapping[str, float], rewards: Mapping[str, Any]) -> str:
    """Return the name of a baseline: morl-0.40-0.60, in the order of the recipe's rewards."""
    shown = [weights.get(name, 0.0) for name in rewards]
    return "-".join(["morl", *(f"{weight:.2f}" if round(weight, 2) == weight else f"{weight:g}" for weight in shown)])


def train_adapter(
    recipe: Recipe,
    name: str,
    weights: Mapping[str, float],
    kind: Literal["expert", "morl"],
    progress: Progress,
    *,
    overwrite: bool = False,
) -> Path:
    """Train the adapter ``name`` on the weighted mean of rewards and return its folder.

    A finished adapter made from the same inputs is left as it is; an unfinished one goes on. One made from other
    inputs is an AdapterError, unless ``overwrite`` is given.
    """
    folder, checkpoints = adapter_folder(recipe, name), checkpoint_folder(recipe, name)
    stale = False
    try:
        if is_trained(recipe, name, weights):
            return folder
    except AdapterError:
        if not overwrite:
            raise
        stale = True
    objective = Objective(make_scorers(recipe.rewards), weights)
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    examples = load_examples(resolve_task(recipe.task), tokenizer, "train", recipe.seed)
    start = ensure_start(recipe, progress, overwrite=overwrite)
    assert start.path is not None
    model = load_language_model(recipe.model.base, revision=recipe.model.revision, dtype=recipe.model.dtype)
    policy = read_start(model, start.path)
    for remark in examples.remarks("training"):
        progress.say(remark)
    if stale:
        shutil.rmtree(checkpoints, ignore_errors=True)
    fingerprint = training_fingerprint(recipe, weights)
    state = train(
        policy,
        examples.rows,
        objective,
        recipe.training,
        recipe.generation,
        seed=recipe.seed,
        folder=checkpoints,
        fingerprint=fingerprint,
        progress=progress,
    )
    provenance = {
        **_provenance(recipe, model, kind, name),
        "init_sha256": start.sha256,
        "rewards": dict(weights),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "fingerprint": fingerprint,
    }
    _write(folder, policy, provenance, training_card(recipe, provenance, checkpoints / METRICS_FILE), checkpoints)
    shutil.rmtree(checkpoints)
    return folder


def is_trained(recipe: Recipe, name: str, weights: Mapping[str, float]) -> bool:
    """Tell whether an adapter is finished; AdapterError if it, or a part of it, was made from other inputs."""
    fingerprint = training_fingerprint(recipe, weights)
    if _is_done(adapter_folder(recipe, name), fingerprint):
        return True
    _check_unfinished(checkpoint_folder(recipe, name), fingerprint)
    return False


def ensure_start(recipe: Recipe, progress: Progress, *, overwrite: bool = False) -> Adapter:
    """Return the adapter that every training of the run begins from, making it the first time."""
    folder = adapter_folder(recipe, START)
    fingerprint = start_fingerprint(recipe)
    try:
        if _is_done(folder, fingerprint):
            return read_adapter(folder)
    except AdapterError:
        if not overwrite:
            raise
    progress.say(f"Making the shared start of all adapters: {folder}")
    model = load_language_model(recipe.model.base, revision=recipe.model.revision, dtype=recipe.model.dtype)
    torch.manual_seed(recipe.seed)
    if recipe.model.start:
        policy = read_start(model, Path(recipe.model.start))
    else:
        policy = Policy(model, fresh_config(recipe.model.lora, model))
    provenance = {**_provenance(recipe, model, "init", START), "fingerprint": fingerprint}
    _write(folder, policy, provenance, training_card(recipe, provenance, None), None)
    return read_adapter(folder)


def start_fingerprint(recipe: Recipe) -> str:
    """Return a hash of everything that decides a run's shared start."""
    return sha256_json(
        {
            "base": model_sha256(recipe.model.base, recipe.model.revision),
            "lora": recipe.model.lora.model_dump(),
            "start": read_adapter(recipe.model.start).sha256 if recipe.model.start else None,
            "seed": recipe.seed,
        }
    )


def training_fingerprint(recipe: Recipe, weights: Mapping[str, float]) -> str:
    """Return a hash of everything that decides what a training gives."""
    for name in weights:
        if name not in recipe.rewards:
            raise RecipeError(f"The recipe has no reward {name!r}.", f"Its rewards are {', '.join(recipe.rewards)}.")
    task = resolve_task(recipe.task)
    used = {name: weight for name, weight in weights.items() if weight}
    return sha256_json(
        {
            "start": start_fingerprint(recipe),
            "dtype": recipe.model.dtype,
            "posts": posts_sha256(task, "train"),
            "task": task.identity(),
            "rewards": {name: reward_identity(name, recipe.rewards[name]) for name in used},
            "weights": used,
            "training": recipe.training.model_dump(exclude={"checkpoint_every"}),
            "generation": recipe.generation.model_dump(),
            "seed": recipe.seed,
        }
    )


def _is_done(folder: Path, fingerprint: str) -> bool:
    """Tell whether a finished adapter made from these inputs is there; AdapterError if it was made from others."""
    if not folder.exists():
        return False
    found = read_json(folder / PROVENANCE_FILE, schema=SCHEMA, what="an adapter's provenance", error=AdapterError)
    if found.get("fingerprint") != fingerprint:
        raise AdapterError(
            f"{folder}: is there, made with other settings, data or base model.",
            "Give another output folder (-o), or replace it with --overwrite.",
        )
    if found.get("sha256") != sha256_file(folder / WEIGHTS_FILE):
        raise AdapterError(
            f"{folder / WEIGHTS_FILE}: was changed after training.", "Delete the folder and train again."
        )
    return True


def _check_unfinished(checkpoints: Path, fingerprint: str) -> None:
    for checkpoint in list_checkpoints(checkpoints)[-1:]:
        if read_state(checkpoint).fingerprint != fingerprint:
            raise AdapterError(
                f"{checkpoints}: holds an unfinished training with other settings, data or base model.",
                "Give another output folder (-o), or start over with --overwrite.",
            )


def _provenance(recipe: Recipe, model: LanguageModel, kind: str, name: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "base_model": {"name": model.name, "sha256": model.sha256},
        "seed": recipe.seed,
        "versions": {"rsoup": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}},
    }


def _write(folder: Path, policy: Policy, provenance: dict[str, Any], card: str, checkpoints: Path | None) -> None:
    with whole_folder(folder) as partial:
        policy.save(partial)
        if checkpoints is not None:
            shutil.copy(checkpoints / METRICS_FILE, partial)
        sha256 = sha256_file(partial / WEIGHTS_FILE)
        write_text(partial / "README.md", card)
        write_json(partial / PROVENANCE_FILE, {"init_sha256": sha256, **provenance, "sha256": sha256})
