"""One training as a command sees it: from a recipe to an adapter folder, started once, continued, never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from rsoup.adapters import Adapter, read_adapter
from rsoup.errors import AdapterError
from rsoup.evaluation.lending import lends
from rsoup.locks import lock_file, my_turn
from rsoup.models.load import check_placement, model_source
from rsoup.progress import Progress
from rsoup.recipe import START, Recipe, TrainingSection
from rsoup.resolve import Resolved
from rsoup.training.card import training_card
from rsoup.training.checkpoint import TrainingState
from rsoup.training.finished import clear, is_done, is_trained, start_fingerprint, training_fingerprint
from rsoup.training.folders import adapter_folder, checkpoint_folder, trajectory_folder
from rsoup.training.loop import Objective, train
from rsoup.training.policy import Policy, fresh_config, read_start
from rsoup.training.sampling_checks import check_sampling
from rsoup.training.scores import Running
from rsoup.training.team import Team
from rsoup.training.trl_settings import check_trl
from rsoup.training.vllm_sampling import Place
from rsoup.training.writing import Notes, provenance, write_adapter


def train_adapter(
    resolved: Resolved,
    name: str,
    weights: Mapping[str, float],
    kind: Literal["expert", "morl"],
    progress: Progress,
    *,
    overwrite: bool = False,
    wait: bool = True,
) -> Path:
    """Train the adapter ``name`` on the weighted mean of rewards and return its folder.

    A finished adapter made from the same inputs is left as it is; an unfinished one goes on. One made from other
    inputs is an AdapterError, unless ``overwrite`` is given. If another worker is making it, wait, or raise Taken.
    """
    recipe = resolved.recipe
    folder = adapter_folder(recipe, name)
    team = Team(recipe.training.report_to, recipe.folder / "logs" / name)

    def is_made() -> bool:
        return is_there(lambda: is_trained(resolved, name, weights), overwrite=overwrite)

    if team.decides(is_made):
        return folder
    check_trl(recipe.training, recipe.generation)
    check_placement(recipe.model.placement)
    check_sampling(recipe.training, team.size)
    objective = Objective(resolved.scorers, weights, recipe.minimized)
    examples = resolved.training_examples  # what is wrong shows before anything is written
    resolved.check_applying([own for own, weight in weights.items() if weight], examples)
    for remark in (*examples.remarks("training"), *resolved.unsaid):
        progress.say(remark)
    with _turn(recipe, name, team, progress, wait=wait):
        if team.decides(is_made):
            return folder  # made by another worker meanwhile
        if team.leads:
            clear(resolved, name, weights, overwrite=overwrite)
        start = ensure_start(resolved, team, progress, overwrite=overwrite)
        assert start.path is not None
        policy = read_start(resolved.base.load(), start.path)
        notes = Notes(recipe, policy, kind, name, start, weights, team.size)
        state = _train(resolved, notes, objective, team, progress)
        for own, weight in weights.items():
            if weight and not state.running.get(own, Running()).count:
                progress.say(f"warning: {own} applied to no completion of the training: it taught {name} nothing.")
        if team.leads:
            notes.write(folder, state)
            shutil.rmtree(checkpoint_folder(recipe, name))
        team.wait()
    return folder


def is_there(is_finished: Callable[[], bool], *, overwrite: bool) -> bool:
    """Tell whether an adapter is finished; one to be overwritten counts only if it was made from the same inputs."""
    try:
        return is_finished()
    except AdapterError:
        if not overwrite:
            raise
        return False


def _train(resolved: Resolved, notes: Notes, objective: Objective, team: Team, progress: Progress) -> TrainingState:
    recipe, examples = resolved.recipe, resolved.training_examples.rows
    fingerprint = training_fingerprint(resolved, objective.weights)

    def after_step(state: TrainingState) -> None:
        every = recipe.training.save_every
        if every and state.step % every == 0 and team.leads:
            notes.write(trajectory_folder(recipe, notes.name) / f"step-{state.step:06d}", state)

    more: dict[str, Any] = {}
    if recipe.training.sampling == "vllm":
        source = model_source(resolved.base.place or resolved.base.name)
        more["vllm"] = Place(source, recipe.model.revision)
    team.begin_log({"name": notes.name, "seed": recipe.seed, "fingerprint": fingerprint})
    state = _trainer(recipe.training)(
        notes.policy,
        examples,
        objective,
        recipe.training.for_rows(len(examples)),
        recipe.generation,
        seed=recipe.seed,
        folder=checkpoint_folder(recipe, notes.name),
        fingerprint=fingerprint,
        progress=progress,
        team=team,
        after_step=after_step,
        **more,
    )
    team.end_log()
    return state


def _trainer(training: TrainingSection) -> Callable[..., TrainingState]:
    if training.algo == "ppo":
        return train
    from rsoup.training.trl_backend import train_with_trl  # takes seconds to import

    return train_with_trl


@contextmanager
def _turn(recipe: Recipe, name: str, team: Team, progress: Progress, *, wait: bool = True) -> Iterator[None]:
    """Be the only worker, or the only team of processes, that makes an adapter within the block."""

    def on_wait() -> None:
        progress.say(f"Another worker is making {name}; waiting for it.")

    with my_turn(lock_file(recipe.folder, name), on_wait, team.decides, wait=wait):
        yield


def ensure_start(resolved: Resolved, team: Team, progress: Progress, *, overwrite: bool = False) -> Adapter:
    """Return the adapter that every training of the run begins from, making it the first time."""
    folder = adapter_folder(resolved.recipe, START)
    fingerprint = start_fingerprint(resolved)
    with _turn(resolved.recipe, START, team, progress):
        if not team.decides(lambda: is_there(lambda: is_done(folder, fingerprint), overwrite=overwrite)):
            if team.leads:
                progress.say(f"Making the shared start of all adapters: {folder}")
            if team.leads or lends(resolved.base):  # a base that is split is loaded by all
                _make_start(resolved, folder, fingerprint, writes=team.leads)
            team.wait()
    return read_adapter(folder)


def _make_start(resolved: Resolved, folder: Path, fingerprint: str, *, writes: bool) -> None:
    recipe, model = resolved.recipe, resolved.base.load()
    torch.manual_seed(recipe.seed)
    if resolved.start:
        given = read_adapter(resolved.start).path
        assert given is not None
        policy = read_start(model, given)
    else:
        policy = Policy(model, fresh_config(recipe.model.lora, model))
    if not writes:
        return
    told = {**provenance(recipe, model, "init", START), "fingerprint": fingerprint}
    write_adapter(folder, policy, told, training_card(recipe, told, None), None)
