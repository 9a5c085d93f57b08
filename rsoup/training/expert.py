"""One training as a command sees it: from a recipe to an adapter folder, started once, continued, never repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from rsoup.adapters import Adapter, read_adapter
from rsoup.errors import AdapterError
from rsoup.evaluation.lending import lends
from rsoup.locks import Turn, lock_file, my_turn
from rsoup.models.load import check_placement, model_source
from rsoup.progress import Progress, say_once
from rsoup.recipe import START, Recipe, TrainingSection
from rsoup.resolve import Resolved
from rsoup.rewards.judges.usage import counted
from rsoup.training.card import training_card
from rsoup.training.checkpoint import TrainingState
from rsoup.training.finished import clear, is_done, is_trained, start_fingerprint, training_fingerprint
from rsoup.training.folders import adapter_folder, checkpoint_folder, step_name, trajectory_folder
from rsoup.training.loop import Objective, train
from rsoup.training.policy import Policy, fresh_config, read_start
from rsoup.training.sampling_checks import check_sampling
from rsoup.training.scores import Running
from rsoup.training.team import Team
from rsoup.training.trl_settings import check_trl
from rsoup.training.vllm_sampling import Place
from rsoup.training.writing import Notes, provenance, write_adapter

T = TypeVar("T")


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
    check_placement(recipe.model.placement)
    check_sampling(recipe.training, team.size)
    look_ahead(resolved, [weights], progress)
    with turn(recipe, name, team, progress, wait=wait) as held:
        if team.decides(is_made):
            return folder  # made by another worker meanwhile
        if team.leads:
            clear(resolved, name, weights, overwrite=overwrite)
        start = ensure_start(resolved, team, progress, overwrite=overwrite)
        assert start.path is not None
        policy = read_start(resolved.base.load(), start.path)
        notes = Notes(recipe, policy, kind, name, start, weights, team.size)
        making = Making(resolved, notes, team, progress, held)
        with counted(progress.say):
            making.end(making.begin(_trainer(recipe.training)))
    return folder


def look_ahead(resolved: Resolved, weightings: Iterable[Mapping[str, float]], progress: Progress) -> None:
    """Say what there is to say before trainings on these rewards, and refuse what is wrong while nothing is written."""
    check_trl(resolved.recipe.training, resolved.recipe.generation)
    _ = resolved.scorers
    examples = resolved.training_examples
    used = [own for weights in weightings for own, weight in weights.items() if weight]
    resolved.check_applying(dict.fromkeys(used), examples)
    for remark in (*examples.remarks("training"), *resolved.unsaid):
        say_once(progress, remark)


def is_there(is_finished: Callable[[], bool], *, overwrite: bool) -> bool:
    """Tell whether an adapter is finished; one to be overwritten counts only if it was made from the same inputs."""
    try:
        return is_finished()
    except AdapterError:
        if not overwrite:
            raise
        return False


@dataclass(frozen=True)
class Making:
    """A training from its first step, or the last one that was kept, to the adapter's folder."""

    resolved: Resolved
    notes: Notes
    team: Team
    progress: Progress
    turn: Turn

    def begin(self, trainer: Callable[..., T], **options: Any) -> T:
        """Return what a trainer returns: the last state, or a coroutine that does."""
        recipe, notes, examples = self.resolved.recipe, self.notes, self.resolved.training_examples.rows
        fingerprint = training_fingerprint(self.resolved, notes.weights)
        self.team.begin_log({"name": notes.name, "seed": recipe.seed, "fingerprint": fingerprint})
        return trainer(
            notes.policy,
            examples,
            Objective(self.resolved.scorers, notes.weights, recipe.minimized),
            recipe.training.for_rows(len(examples)),
            recipe.generation,
            seed=recipe.seed,
            folder=checkpoint_folder(recipe, notes.name),
            fingerprint=fingerprint,
            progress=self.progress,
            team=self.team,
            after_step=self._after_step,
            turn=self.turn,
            **self._sampling(),
            **options,
        )

    def end(self, state: TrainingState) -> None:
        """Write the adapter in the place of its checkpoints."""
        recipe, name = self.resolved.recipe, self.notes.name
        self.team.end_log()
        self.turn.check()
        for own, weight in self.notes.weights.items():
            if weight and not state.running.get(own, Running()).count:
                self.progress.say(f"warning: {own} applied to no completion of the training: it taught {name} nothing.")
        if self.team.leads:
            self.notes.write(adapter_folder(recipe, name), state)
            shutil.rmtree(checkpoint_folder(recipe, name), ignore_errors=True)  # or another command has
        self.team.wait()

    def _sampling(self) -> dict[str, Any]:
        """Return where the base lies if vLLM samples from it."""
        recipe, base = self.resolved.recipe, self.resolved.base
        if recipe.training.sampling != "vllm":
            return {}
        return {"vllm": Place(model_source(base.place or base.name), recipe.model.revision)}

    def _after_step(self, state: TrainingState) -> None:
        recipe, every = self.resolved.recipe, self.resolved.recipe.training.save_every
        if every and state.step % every == 0 and self.team.leads:
            self.notes.write(trajectory_folder(recipe, self.notes.name) / step_name(state.step), state)


def _trainer(training: TrainingSection) -> Callable[..., TrainingState]:
    if training.algo == "ppo":
        return train
    from rsoup.training.trl_backend import train_with_trl  # takes seconds to import

    return train_with_trl


@contextmanager
def turn(recipe: Recipe, name: str, team: Team, progress: Progress, *, wait: bool = True) -> Iterator[Turn]:
    """Be the only worker, or the only team of processes, that makes an adapter within the block."""

    def on_wait() -> None:
        progress.say(f"Another worker is making {name}; waiting for it.")

    with my_turn(lock_file(recipe.folder, name), on_wait, team.decides, wait=wait) as held:
        yield held


def ensure_start(resolved: Resolved, team: Team, progress: Progress, *, overwrite: bool = False) -> Adapter:
    """Return the adapter that every training of the run begins from, making it the first time."""
    folder = adapter_folder(resolved.recipe, START)
    fingerprint = start_fingerprint(resolved)
    with turn(resolved.recipe, START, team, progress):
        if not team.decides(
            lambda: is_there(lambda: is_done(folder, fingerprint, resolved.recipe), overwrite=overwrite)
        ):
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
