"""The whole experiment: experts, baselines, evaluation, report; it continues where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsoup.errors import AdapterError
from rsoup.evaluation.results import RESULTS
from rsoup.evaluation.sweep import evaluate
from rsoup.files import write_text
from rsoup.locks import is_taken, lock_file
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.recipe_file import dump_recipe
from rsoup.report import Options, Report, make_report
from rsoup.resolve import Resolved
from rsoup.training.expert import train_adapter
from rsoup.training.finished import is_trained
from rsoup.training.folders import adapter_folder, morl_name
from rsoup.training.team import Team
from rsoup.training.trl_settings import check_trl

RECIPE = "recipe.yaml"


def run(resolved: Resolved, progress: Progress, *, overwrite: bool = False) -> Report | None:
    """Make everything a recipe describes and return the report; stages that are done are not repeated.

    Several workers may run one recipe in a folder they share: each takes trainings that no other has begun, and
    all wait for the last one. Processes started by ``accelerate launch`` train together; the leading one evaluates
    and returns the report, the others return None.
    """
    recipe = resolved.recipe
    check_trl(recipe.training, recipe.generation)
    resolved.check()
    trainings = trainings_of(recipe)
    if not overwrite:
        for training in trainings:
            is_trained(resolved, training.name, training.weights)  # refuses what was made from other inputs
    team = Team()
    if team.leads:
        write_text(recipe.folder / RECIPE, dump_recipe(recipe))
    waiting = {training.name: training for training in trainings}
    while waiting:
        free = (name for name in waiting if not is_taken(lock_file(recipe.folder, name)))
        training = waiting.pop(team.agree(next(free, next(iter(waiting)))))
        train_adapter(resolved, training.name, training.weights, training.kind, progress, overwrite=overwrite)
    if not team.leads:
        return None
    evaluation = recipe.folder / "eval"
    evaluate(resolved, ingredients_of(recipe), evaluation, progress)
    progress.start("report", 1)
    report = make_report([evaluation / RESULTS], recipe.folder / "report", Options(seed=recipe.seed))
    progress.advance()
    progress.finish()
    return report


@dataclass(frozen=True)
class Stage:
    """A part of a run as a command of its own, to be started once the stages in ``waits_for`` are done."""

    name: str
    command: tuple[str, ...]
    waits_for: tuple[str, ...]


def plan(recipe: Recipe) -> list[Stage]:
    """Return a run as independent commands, after writing the recipe they read into the run's folder."""
    written = recipe.folder / RECIPE
    write_text(written, dump_recipe(recipe))
    there = "-o", str(recipe.folder)
    stages = []
    for training in trainings_of(recipe):
        if training.kind == "expert":
            words = ["train", str(written), "--reward", training.name]
        else:
            words = ["morl", str(written), "--weights", ",".join(f"{k}={v!r}" for k, v in training.weights.items())]
        stages.append(Stage(training.name, ("rsoup", *words, *there), ()))
    trained = tuple(stage.name for stage in stages)
    stages.append(Stage("eval", ("rsoup", "eval", str(written), *there), trained))
    results, report = recipe.folder / "eval" / RESULTS, recipe.folder / "report"
    command = ("rsoup", "pareto", str(results), "-o", str(report), "--seed", str(recipe.seed))
    stages.append(Stage("report", command, ("eval",)))
    return stages


@dataclass(frozen=True)
class Training:
    """An adapter of a recipe: an expert on one reward, or a baseline (morl) on several."""

    name: str
    weights: dict[str, float]
    kind: Literal["expert", "morl"]


def trainings_of(recipe: Recipe) -> list[Training]:
    """Return what a recipe trains, in order; nothing, if it mixes whole models."""
    if recipe.models:
        return []
    experts = [Training(reward, {reward: 1.0}, "expert") for reward in recipe.rewards]
    baselines = [Training(morl_name(weights, recipe.rewards), weights, "morl") for weights in recipe.morl]
    return [*experts, *baselines]


def ingredients_of(recipe: Recipe, *, needed: bool = True) -> list[str | Path]:
    """Return what a run mixes: the models of its recipe as NAME=SOURCE, else its trained adapters."""
    if recipe.models:
        return [f"{name}={source}" for name, source in recipe.models.items()]
    return [*adapters_of(recipe, needed=needed)]


def adapters_of(recipe: Recipe, *, needed: bool = True) -> list[Path]:
    """Return the trained adapters of a run: the recipe's, then other baselines there.

    AdapterError if there is none and one is ``needed``.
    """
    planned = [adapter_folder(recipe, training.name) for training in trainings_of(recipe)]
    others = sorted((recipe.folder / "adapters").glob("morl-*"))
    trained = [folder for folder in dict.fromkeys([*planned, *others]) if folder.is_dir()]
    if needed and not trained and recipe.models:
        raise AdapterError(
            f"{recipe.folder}: mixes whole models, and trains no adapter.",
            "Write the mix you want (rsoup mix), and use it as any model; or give --adapters A B.",
        )
    if needed and not trained:
        raise AdapterError(f"{recipe.folder}: holds no trained adapter.", "Train them first, or give --adapters A B.")
    return trained
