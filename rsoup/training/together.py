"""Several trainings of a run at once, on one resident base: each from its recipe to its folder, as if alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from rsoup.errors import RecipeError
from rsoup.locks import Taken, Turn
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.resolve import Resolved
from rsoup.rewards.judges.usage import counted
from rsoup.training.expert import Making, ensure_start, is_there, look_ahead, turn
from rsoup.training.finished import clear, is_trained
from rsoup.training.folders import Training
from rsoup.training.joint import Joint
from rsoup.training.lanes import Lane, LaneProgress, run_abreast
from rsoup.training.loop import rounds
from rsoup.training.passes import alone
from rsoup.training.policy import read_start
from rsoup.training.team import Team
from rsoup.training.writing import Notes

ONE_RUN = ("wandb", "trackio")
"""Trackers that log one training of a process at a time."""
APART = "Leave training.together out."


def check_together(recipe: Recipe, *, processes: int = 1, workers: bool = False) -> None:
    """Raise RecipeError if trainings are to go together that cannot."""
    training = recipe.training
    if not training.together:
        return
    if training.algo != "ppo":
        algo = training.algo.upper()
        raise RecipeError(
            f"training.together is for PPO: {algo} is TRL's, whose trainer has one adapter to a model.",
            "Leave training.together out, or set training.algo to ppo.",
        )
    if training.sampling == "vllm":
        raise RecipeError(
            "training.together samples the completions of all trainings in one pass of its own, not with vLLM.",
            "Leave out one of them.",
        )
    if recipe.model.placement == "sharded":
        raise RecipeError(
            "training.together trains in one process, and model.placement sharded splits the base over several.",
            "Leave out one of them.",
        )
    if workers:
        raise RecipeError(
            "training.together trains in one process, and --ray gives each training a worker of its own.",
            "Leave out one of them.",
        )
    if processes > 1:
        raise RecipeError(
            f"training.together trains all adapters in one process, and a launcher has started {processes}.", APART
        )
    if tracker := next((tracker for tracker in training.report_to if tracker in ONE_RUN), None):
        raise RecipeError(
            f"training.report_to {tracker}: it logs one training of a process at a time, and these are several.",
            "Use tensorboard, or leave training.together out.",
        )
    if training.gradient_checkpointing and recipe.model.lora.dropout:
        raise RecipeError(
            "With training.together, layers that training.gradient_checkpointing computes again would not draw each "
            "adapter's dropout again.",
            "Set model.lora.dropout to 0, or save memory by training.prompts_per_pass, or leave training.together out.",
        )
    if recipe.model.quantization == "8bit":
        raise RecipeError(
            "model.quantization 8bit: its products depend on the rows beside a row, so trainings together would not be "
            "what each is alone.",
            "Use 4bit or no quantization, or leave training.together out.",
        )


def train_adapters(
    resolved: Resolved, trainings: Sequence[Training], progress: Progress, *, overwrite: bool = False
) -> list[Training]:
    """Train adapters at once as ``train_adapter`` trains one, and return those that are made.

    What another worker is making is left to it, and is not among them.
    """
    teams = {own.name: _team(resolved.recipe, own.name) for own in trainings}
    if not teams:
        return []
    team = teams[trainings[0].name]
    check_together(resolved.recipe, processes=team.size)

    def is_made(training: Training) -> bool:
        return is_there(lambda: is_trained(resolved, training.name, training.weights), overwrite=overwrite)

    with ExitStack() as turns:
        missing = [training for training in trainings if not is_made(training)]
        if missing:
            look_ahead(resolved, [training.weights for training in missing], progress)
        held = {own.name: mine for own in missing if (mine := _takes(turns, resolved.recipe, own, team, progress))}
        taken = [training for training in missing if training.name not in held]
        ours = [training for training in missing if training.name in held and not is_made(training)]
        if ours:
            with counted(progress.say):
                _train(resolved, ours, teams, held, progress, overwrite=overwrite)
    return [training for training in trainings if training not in taken]


def _takes(turns: ExitStack, recipe: Recipe, training: Training, team: Team, progress: Progress) -> Turn | None:
    """Return the turn to make an adapter, which no other worker does until ``turns`` end; None if one does now."""
    try:
        return turns.enter_context(turn(recipe, training.name, team, progress, wait=False))
    except Taken:
        return None


def _team(recipe: Recipe, name: str) -> Team:
    return Team(recipe.training.report_to, recipe.folder / "logs" / name)


def _train(
    resolved: Resolved,
    trainings: Sequence[Training],
    teams: Mapping[str, Team],
    held: Mapping[str, Turn],
    progress: Progress,
    *,
    overwrite: bool,
) -> None:
    recipe, team = resolved.recipe, teams[trainings[0].name]
    for training in trainings:
        clear(resolved, training.name, training.weights, overwrite=overwrite)
    start = ensure_start(resolved, team, progress, overwrite=overwrite)
    assert start.path is not None
    first = read_start(resolved.base.load(), start.path)
    policies = [first, *(first.twin() for _ in trainings[1:])]
    makings = []
    for training, policy in zip(trainings, policies, strict=True):
        notes = Notes(recipe, policy, training.kind, training.name, start, training.weights, team.size)
        shown = LaneProgress(progress, training.name) if len(trainings) > 1 else progress
        makings.append(Making(resolved, notes, teams[training.name], shown, held[training.name]))
    if len(makings) == 1:
        alone(_make(makings[0], time.perf_counter), team)
        return
    lanes = [Lane(making.notes.name, partial(_make, making), first.language_model.device) for making in makings]
    randoms = {policy: lane.stream.flowing for policy, lane in zip(policies, lanes, strict=True)}
    run_abreast(lanes, Joint(randoms, team).answer, recipe.training.prompts_per_pass)
    progress.finish()


async def _make(making: Making, clock: Callable[[], float]) -> None:
    making.end(await making.begin(rounds, clock=clock))
