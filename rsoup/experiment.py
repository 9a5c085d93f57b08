"""The whole experiment: experts, baselines, evaluation, report; it continues where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rsoup.evaluation.lending import lend, lends
from rsoup.evaluation.results import RESULTS
from rsoup.evaluation.sweep import evaluate
from rsoup.files import write_text
from rsoup.locks import Taken, is_taken, lock_file
from rsoup.models.load import check_placement
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.recipe_file import dump_recipe
from rsoup.report import Options, Report, make_report
from rsoup.resolve import Resolved
from rsoup.stages.dispatch import Crew
from rsoup.stages.graph import check_fronts, trainings_of
from rsoup.stages.together import check_trained, check_whole, run_together, whole_models_stay
from rsoup.stages.trained import adapters_of, ingredients_of
from rsoup.training.expert import train_adapter
from rsoup.training.folders import RECIPE
from rsoup.training.sampling_checks import check_sampling
from rsoup.training.team import Team
from rsoup.training.together import check_together, train_adapters
from rsoup.training.trl_settings import check_trl

__all__ = ["Command", "adapters_of", "ingredients_of", "plan", "run", "run_all", "trainings_of"]


def run(resolved: Resolved, progress: Progress, *, overwrite: bool = False) -> Report | None:
    """Make everything a recipe of one seed describes and return the report; stages that are done are not repeated."""
    return run_all(resolved.recipe, [resolved], progress, overwrite=overwrite)


def run_all(
    recipe: Recipe, runs: Sequence[Resolved], progress: Progress, *, overwrite: bool = False, crew: Crew | None = None
) -> Report | None:
    """Make everything a recipe describes, with a run for each seed, and return the report that pools them.

    Without a ``crew`` of workers, stages are done one after another. Several commands may then run one recipe in a
    folder they share: each takes trainings that no other has begun, and all wait for the last one. Processes
    started by ``accelerate launch`` train together; the leading one evaluates and returns the report, the others
    return None.
    """
    if crew is not None and recipe.models:
        raise whole_models_stay()
    if crew is not None:
        check_whole(runs)
    for own in runs:
        check_trl(own.recipe.training, own.recipe.generation)
        check_fronts(own.recipe)
        if crew is None:
            check_placement(own.recipe.model.placement)
            check_sampling(own.recipe.training, Team().size)
            own.check()
        else:  # the rewards, which may be large, are checked by a worker
            _ = own.training_examples, own.held_out_examples, own.benchmarks
        if not overwrite:
            check_trained(own, trainings_of(own.recipe))
    team = Team() if crew is None else None
    check_together(recipe, processes=1 if team is None else team.size, workers=crew is not None)
    if team is None or team.leads:
        for written in {str(own.folder): own for own in (recipe, *(own.recipe for own in runs))}.values():
            write_text(written.folder / RECIPE, dump_recipe(written))

    def report() -> Report:
        results = [own.recipe.folder / "eval" / RESULTS for own in runs]
        return make_report(results, recipe.folder / "report", Options(seed=recipe.seed))

    if crew is not None or team is None:
        assert crew is not None
        return run_together(runs, report, crew, progress, overwrite=overwrite)
    for own in runs:
        _run_here(own, team, progress, overwrite=overwrite)
    if not team.leads:
        return None
    progress.start("report", 1)
    made = report()
    progress.advance()
    progress.finish()
    return made


def _run_here(resolved: Resolved, team: Team, progress: Progress, *, overwrite: bool) -> None:
    """Train and evaluate one after another, first what no other command that shares the folder is at."""
    recipe = resolved.recipe
    waiting = {training.name: training for training in trainings_of(recipe)}
    if recipe.training.together:
        for training in train_adapters(resolved, list(waiting.values()), progress, overwrite=overwrite):
            del waiting[training.name]
    while waiting:
        free = next((name for name in waiting if not is_taken(lock_file(recipe.folder, name))), "")
        name = team.agree(free)
        training = waiting.pop(name or next(iter(waiting)))
        with suppress(Taken):  # by another that chose it at the same moment
            train_adapter(
                resolved,
                training.name,
                training.weights,
                training.kind,
                progress,
                overwrite=overwrite,
                wait=not name,
            )
            continue
        waiting[training.name] = training
    if team.leads:
        evaluate(resolved, ingredients_of(recipe), recipe.folder / "eval", progress)
    elif lends(resolved.base):
        lend(resolved.base)


@dataclass(frozen=True)
class Command:
    """A part of a run as a command of its own, to be started once those in ``waits_for`` are done."""

    name: str
    command: tuple[str, ...]
    waits_for: tuple[str, ...]


def plan(recipe: Recipe) -> list[Command]:
    """Return a run as independent commands, after writing the recipes they read into the folders of the run."""
    recipes, commands, results = recipe.by_seed(), [], []
    for own in recipes:
        written = own.folder / RECIPE
        write_text(written, dump_recipe(own))
        where = f"seed-{own.seed}/" if len(recipes) > 1 else ""
        there = "-o", str(own.folder)
        trained = []
        for training in trainings_of(own):
            weights = ",".join(f"{name}={weight!r}" for name, weight in training.weights.items())
            words = ["--reward", training.name] if training.kind == "expert" else ["--weights", weights]
            verb = "train" if training.kind == "expert" else "morl"
            trained.append(Command(where + training.name, ("rsoup", verb, str(written), *words, *there), ()))
        measured = Command(
            f"{where}eval", ("rsoup", "eval", str(written), *there), tuple(stage.name for stage in trained)
        )
        commands += [*trained, measured]
        results.append((measured.name, str(own.folder / "eval" / RESULTS)))
    words = ["rsoup", "pareto", *(path for _, path in results), "-o", str(recipe.folder / "report")]
    report = Command("report", (*words, "--seed", str(recipe.seed)), tuple(name for name, _ in results))
    return [*commands, report]
