"""One training as a command sees it: from a recipe to an adapter folder, started once, continued, never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from rsoup import __version__
from rsoup.adapters import Adapter, read_adapter
from rsoup.adapters.reading import PROVENANCE_FILE, WEIGHTS_FILE
from rsoup.errors import AdapterError, RecipeError
from rsoup.files import read_json, sha256_file, sha256_json, whole_folder, write_json, write_text
from rsoup.locks import lock_file, my_turn
from rsoup.mixing import lattice
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import context_length, load_language_model, load_tokenizer, model_sha256, settings_sha256
from rsoup.progress import Progress
from rsoup.recipe import START, Recipe, TrainingSection
from rsoup.rewards import reads_rows, reward_identity
from rsoup.rewards.functions import check_functions
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import make_scorers
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import Example, load_examples, posts_sha256, read_rows
from rsoup.training.card import training_card
from rsoup.training.checkpoint import TrainingState, list_checkpoints, read_state
from rsoup.training.loop import Objective, train
from rsoup.training.metrics import METRICS_FILE
from rsoup.training.policy import Policy, fresh_config, read_start
from rsoup.training.team import Team
from rsoup.training.trl_settings import check_trl

SCHEMA = 1
IMMATERIAL = {"checkpoint_every", "save_every", "prompts_per_pass", "gradient_checkpointing", "report_to"}
"""Settings of a training that decide how it is computed, not what."""


def adapter_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps an adapter."""
    return recipe.folder / "adapters" / name


def checkpoint_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps the checkpoints of an unfinished training."""
    return recipe.folder / "checkpoints" / name


def trajectory_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps the adapters along a training."""
    return recipe.folder / "trajectory" / name


def morl_name(weights: Mapping[str, float], rewards: Mapping[str, Any]) -> str:
    """Return the name of a baseline: morl-0.40-0.60, in the order of the recipe's rewards."""
    shown = [weights.get(name, 0.0) for name in rewards]
    return "-".join(["morl", *(f"{weight:.2f}" if round(weight, 2) == weight else f"{weight:g}" for weight in shown)])


def inner_weights(rewards: Sequence[str], steps: int) -> list[dict[str, float]]:
    """Return every weighting of rewards in steps of 1 / ``steps``, but those of one reward alone: they are experts."""
    points = [dict(zip(rewards, point, strict=True)) for point in lattice(len(rewards), steps)]
    return [point for point in points if max(point.values()) < 1]


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
    folder = adapter_folder(recipe, name)
    team = Team(recipe.training.report_to, recipe.folder / "logs" / name)

    def is_there() -> bool:
        return _is_there(recipe, name, weights, overwrite=overwrite)

    if team.decides(is_there):
        return folder
    check_trl(recipe.training, recipe.generation)
    objective = Objective(make_scorers(recipe.rewards), weights)
    examples = _examples(recipe, progress)  # with the line above: what is wrong shows before anything is written
    check_functions(objective.scorers.values(), [sample_of(example, "") for example in examples])
    with _turn(recipe, name, team, progress):
        if team.decides(is_there):
            return folder  # made by another worker meanwhile
        if team.leads:
            _clear(recipe, name, training_fingerprint(recipe, weights), overwrite=overwrite)
        start = ensure_start(recipe, team, progress, overwrite=overwrite)
        assert start.path is not None
        policy = read_start(_load_base(recipe), start.path)
        notes = _Notes(recipe, policy, kind, name, start, weights, team.size)
        state = _train(recipe, notes, examples, objective, team, progress)
        if team.leads:
            _finish(recipe, policy, notes.of(state))
        team.wait()
    return folder


def _is_there(recipe: Recipe, name: str, weights: Mapping[str, float], *, overwrite: bool) -> bool:
    """Tell whether an adapter is finished; one to be overwritten counts only if it was made from the same inputs."""
    try:
        return is_trained(recipe, name, weights)
    except AdapterError:
        if not overwrite:
            raise
        return False


def _examples(recipe: Recipe, progress: Progress) -> Sequence[Example]:
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    context = context_length(recipe.model.base, recipe.model.revision)
    examples = load_examples(resolve_task(recipe.task), tokenizer, "train", recipe.seed)
    examples = examples.with_room(recipe.generation.max_new_tokens, context, "generation.max_new_tokens")
    for remark in examples.remarks("training"):
        progress.say(remark)
    return examples.rows


@dataclass(frozen=True)
class _Notes:
    """What rsoup.json says of an adapter in training."""

    recipe: Recipe
    policy: Policy
    kind: Literal["expert", "morl"]
    name: str
    start: Adapter
    weights: Mapping[str, float]
    processes: int

    def of(self, state: TrainingState) -> dict[str, Any]:
        """Return the provenance of the adapter as it is now."""
        return {
            **_provenance(self.recipe, self.policy.language_model, self.kind, self.name),
            "init_sha256": self.start.sha256,
            "rewards": dict(self.weights),
            "algo": self.recipe.training.algo,
            "score_scaling": self.recipe.training.score_scaling,
            "score_statistics": {reward: asdict(running) for reward, running in state.running.items()},
            "steps": state.step,
            "seconds": round(state.seconds, 1),
            "processes": self.processes,
            "fingerprint": state.fingerprint,
        }


def _train(
    recipe: Recipe,
    notes: _Notes,
    examples: Sequence[Example],
    objective: Objective,
    team: Team,
    progress: Progress,
) -> TrainingState:
    fingerprint = training_fingerprint(recipe, objective.weights)
    checkpoints = checkpoint_folder(recipe, notes.name)

    def after_step(state: TrainingState) -> None:
        every = recipe.training.save_every
        if every and state.step % every == 0 and team.leads:
            provenance = notes.of(state)
            card = training_card(recipe, provenance, checkpoints / METRICS_FILE)
            folder = trajectory_folder(recipe, notes.name) / f"step-{state.step:06d}"
            _write(folder, notes.policy, provenance, card, checkpoints)

    team.begin_log({"name": notes.name, "seed": recipe.seed, "fingerprint": fingerprint})
    state = _trainer(recipe.training)(
        notes.policy,
        examples,
        objective,
        recipe.training.for_rows(len(examples)),
        recipe.generation,
        seed=recipe.seed,
        folder=checkpoints,
        fingerprint=fingerprint,
        progress=progress,
        team=team,
        after_step=after_step,
    )
    team.end_log()
    return state


def _trainer(training: TrainingSection) -> Callable[..., TrainingState]:
    if training.algo == "ppo":
        return train
    from rsoup.training.trl_backend import train_with_trl  # takes seconds to import

    return train_with_trl


def _finish(recipe: Recipe, policy: Policy, provenance: dict[str, Any]) -> None:
    """Write the adapter's folder and remove the checkpoints."""
    name = provenance["name"]
    checkpoints = checkpoint_folder(recipe, name)
    card = training_card(recipe, provenance, checkpoints / METRICS_FILE)
    _write(adapter_folder(recipe, name), policy, provenance, card, checkpoints)
    shutil.rmtree(checkpoints)


def _load_base(recipe: Recipe) -> LanguageModel:
    section = recipe.model
    return load_language_model(
        section.base, revision=section.revision, dtype=section.dtype, quantization=section.quantization
    )


@contextmanager
def _turn(recipe: Recipe, name: str, team: Team, progress: Progress) -> Iterator[None]:
    """Be the only worker, or the only team of processes, that makes an adapter within the block."""

    def on_wait() -> None:
        progress.say(f"Another worker is making {name}; waiting for it.")

    with my_turn(lock_file(recipe.folder, name), on_wait, team.decides):
        yield


def is_trained(recipe: Recipe, name: str, weights: Mapping[str, float]) -> bool:
    """Tell whether an adapter is finished; AdapterError if it, or a part of it, was made from other inputs."""
    fingerprint = training_fingerprint(recipe, weights)
    if _is_done(adapter_folder(recipe, name), fingerprint):
        return True
    _check_unfinished(checkpoint_folder(recipe, name), fingerprint)
    return False


def ensure_start(recipe: Recipe, team: Team, progress: Progress, *, overwrite: bool = False) -> Adapter:
    """Return the adapter that every training of the run begins from, making it the first time."""
    folder = adapter_folder(recipe, START)
    fingerprint = start_fingerprint(recipe)
    with _turn(recipe, START, team, progress):
        if not team.decides(lambda: _start_is_there(folder, fingerprint, overwrite=overwrite)):
            if team.leads:
                progress.say(f"Making the shared start of all adapters: {folder}")
                _make_start(recipe, folder, fingerprint)
            team.wait()
    return read_adapter(folder)


def _start_is_there(folder: Path, fingerprint: str, *, overwrite: bool) -> bool:
    try:
        return _is_done(folder, fingerprint)
    except AdapterError:
        if not overwrite:
            raise
        return False


def _make_start(recipe: Recipe, folder: Path, fingerprint: str) -> None:
    model = _load_base(recipe)
    torch.manual_seed(recipe.seed)
    if recipe.model.start:
        given = read_adapter(recipe.model.start).path
        assert given is not None
        policy = read_start(model, given)
    else:
        policy = Policy(model, fresh_config(recipe.model.lora, model))
    provenance = {**_provenance(recipe, model, "init", START), "fingerprint": fingerprint}
    _write(folder, policy, provenance, training_card(recipe, provenance, None), None)


def start_fingerprint(recipe: Recipe) -> str:
    """Return a hash of everything that decides a run's shared start."""
    return sha256_json(
        {
            "base": model_sha256(recipe.model.base, recipe.model.revision),
            "settings": settings_sha256(recipe.model.base, recipe.model.revision),
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
            "dtype": [recipe.model.dtype, recipe.model.quantization],
            "posts": posts_sha256(task, "train"),
            "task": task.identity(),
            "rewards": {name: reward_identity(name, recipe.rewards[name]) for name in used},
            "weights": used,
            "training": recipe.training.model_dump(exclude=IMMATERIAL),
            "generation": recipe.generation.model_dump(),
            "seed": recipe.seed,
            **_rows_read(recipe, used),
        }
    )


def _rows_read(recipe: Recipe, used: Iterable[str]) -> dict[str, Any]:
    """Return a hash of all columns of the training rows, where a reward reads more of them than the post."""
    if not any(reads_rows(name, recipe.rewards[name]) for name in used):
        return {}
    rows = read_rows(resolve_task(recipe.task), "train").rows
    return {"rows": sha256_json([sample_of(row, "").key() for row in rows])}


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


def _clear(recipe: Recipe, name: str, fingerprint: str, *, overwrite: bool) -> None:
    """Remove an unfinished training begun with other inputs, if told to, and the trajectory of one that starts over."""
    checkpoints = checkpoint_folder(recipe, name)
    try:
        _check_unfinished(checkpoints, fingerprint)
    except AdapterError:
        if not overwrite:
            raise
        shutil.rmtree(checkpoints)
    if not list_checkpoints(checkpoints):
        shutil.rmtree(trajectory_folder(recipe, name), ignore_errors=True)


def _check_unfinished(checkpoints: Path, fingerprint: str) -> None:
    for checkpoint in list_checkpoints(checkpoints)[-1:]:
        if read_state(checkpoint).fingerprint != fingerprint:
            raise AdapterError(
                f"{checkpoints}: holds an unfinished training with other settings, data or base model.",
                "Give another output folder (-o), or start over with --overwrite.",
            )


def _provenance(recipe: Recipe, model: LanguageModel, kind: str, name: str) -> dict[str, Any]:
    packages = ["torch", "transformers", "peft"]
    if kind != START and recipe.training.algo != "ppo":
        packages.append("trl")
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "base_model": {"name": model.name, "sha256": model.sha256},
        "seed": recipe.seed,
        "versions": {"rsoup": __version__, **{package: version(package) for package in packages}},
    }


def _write(folder: Path, policy: Policy, provenance: dict[str, Any], card: str, checkpoints: Path | None) -> None:
    with whole_folder(folder) as partial:
        policy.save(partial)
        if checkpoints is not None:
            shutil.copy(checkpoints / METRICS_FILE, partial)
        sha256 = sha256_file(partial / WEIGHTS_FILE)
        write_text(partial / "README.md", card)
        write_json(partial / PROVENANCE_FILE, {"init_sha256": sha256, **provenance, "sha256": sha256})
