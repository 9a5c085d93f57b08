"""Runs, evaluations and trainings whose stages workers do side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsoup.errors import RecipeError
from rsoup.evaluation.lending import lend, lends
from rsoup.evaluation.plan import plan_sweep
from rsoup.evaluation.results import Results
from rsoup.evaluation.sweep import evaluate
from rsoup.evaluation.trajectory import read_trajectory
from rsoup.models.load import model_source
from rsoup.progress import Progress, Silent
from rsoup.report import Report
from rsoup.resolve import Resolved
from rsoup.stages.address import HeadGoneError
from rsoup.stages.board import Board
from rsoup.stages.dispatch import Crew, Dispatcher, Hand
from rsoup.stages.driver import Measurer, Trainer
from rsoup.stages.graph import Kind, Stage, stages_of_points, stages_of_runs, stages_of_trainings
from rsoup.stages.trained import adapters_of, other_baselines
from rsoup.training.finished import is_trained
from rsoup.training.folders import Training, adapter_folder

SECONDS_TO_STOP = 10.0
"""How long workers have to hand over what they have done when a command is interrupted."""

Doing = Callable[[Stage, Hand], None]


def run_together(
    runs: Sequence[Resolved], report: Callable[[], Report], crew: Crew, progress: Progress, *, overwrite: bool
) -> Report:
    """Make everything that the runs' recipes describe, and then the report."""
    recipes = [own.recipe for own in runs]
    stages = stages_of_runs(recipes, [other_baselines(recipe) for recipe in recipes])
    board = Board(progress, stages, _prompts(runs))
    trainers = [Trainer(own, board, overwrite=overwrite) for own in runs]
    measurers = [Measurer(own, own.recipe.folder / "eval", board) for own in runs]
    reports: list[Report] = []

    def results(stage: Stage, hand: Hand) -> None:
        own = runs[stage.run]
        with_hand = measurers[stage.run].elsewhere(stage, hand)
        evaluate(own, adapters_of(own.recipe), own.recipe.folder / "eval", _Remarks(board), elsewhere=with_hand)

    _dispatch(
        stages,
        {
            "start": lambda stage, hand: trainers[stage.run].start(stage, hand),
            "training": lambda stage, hand: trainers[stage.run].train(stage, hand),
            "point": lambda stage, hand: measurers[stage.run].measure(stage, hand),
            "results": results,
            "report": lambda _stage, _hand: reports.append(report()),
        },
        crew,
        board,
        progress,
    )
    return reports[0]


def train_together(
    runs: Sequence[Resolved],
    trainings: Sequence[Training],
    crew: Crew,
    progress: Progress,
    *,
    overwrite: bool,
) -> list[Path]:
    """Train the same adapters in each run and return their folders."""
    check_whole(runs)
    stages = [
        stage for run, own in enumerate(runs) for stage in stages_of_trainings(own.recipe, trainings, run, len(runs))
    ]
    board = Board(progress, stages)
    trainers = [Trainer(own, board, overwrite=overwrite) for own in runs]
    doing: dict[Kind, Doing] = {
        "start": lambda stage, hand: trainers[stage.run].start(stage, hand),
        "training": lambda stage, hand: trainers[stage.run].train(stage, hand),
    }
    _dispatch(stages, doing, crew, board, progress)
    return [adapter_folder(own.recipe, training.name) for own in runs for training in trainings]


def evaluate_together(
    resolved: Resolved,
    sources: Sequence[str | Path],
    out: Path,
    crew: Crew | None,
    progress: Progress,
    *,
    trajectory: Path | None = None,
    allow_different_starts: bool = False,
) -> Results | None:
    """Evaluate as ``evaluate`` does, which does it without a crew; None in a process that only lends memory."""
    if crew is None and lends(resolved.base):
        lend(resolved.base)
        return None
    if crew is None:
        return evaluate(
            resolved,
            sources,
            out,
            progress,
            trajectory=trajectory,
            allow_different_starts=allow_different_starts,
        )
    check_whole([resolved])
    recipe = resolved.recipe
    plan = plan_sweep(
        sources,
        recipe.evaluation,
        seed=recipe.seed,
        trajectory=read_trajectory(trajectory) if trajectory is not None else (),
        allow_different_starts=allow_different_starts,
        base=model_source(resolved.base.name),
    )
    if plan.base is not None:
        raise whole_models_stay()
    stages = stages_of_points(recipe, plan.points)
    board = Board(progress, stages, _prompts([resolved]))
    measurer = Measurer(resolved, out, board, plan)
    found: list[Results] = []

    def results(stage: Stage, hand: Hand) -> None:
        own = evaluate(
            resolved,
            sources,
            out,
            _Remarks(board),
            trajectory=trajectory,
            allow_different_starts=allow_different_starts,
            elsewhere=measurer.elsewhere(stage, hand),
        )
        found.append(own)

    _dispatch(stages, {"point": measurer.measure, "results": results}, crew, board, progress)
    return found[0]


def whole_models_stay() -> RecipeError:
    """Return the error for whole models, which are too large to be sent to workers."""
    return RecipeError("Workers are sent adapters, and these are whole models.", "Leave --ray out.")


def check_whole(runs: Sequence[Resolved]) -> None:
    """Refuse bases that do not lie whole on one device."""
    for placement in {own.recipe.model.placement for own in runs} - {"auto"}:
        raise RecipeError(
            f"model.placement {placement}: a worker of --ray makes the start and measures points on one device, which "
            "has to hold the whole base.",
            "Leave --ray out, or set model.placement to auto.",
        )


def check_trained(resolved: Resolved, trainings: Sequence[Training]) -> None:
    """Raise AdapterError if one of the adapters is there and was made from other inputs."""
    for training in trainings:
        is_trained(resolved, training.name, training.weights)


def _prompts(runs: Sequence[Resolved]) -> int:
    """Return how much a point is: its prompts, and the documents of benchmarks."""
    documents = sum(benchmark.count for benchmark in runs[0].benchmarks)
    return documents + min(min(own.recipe.evaluation.prompts, len(own.held_out_examples.rows)) for own in runs)


def _dispatch(
    stages: Sequence[Stage], doing: Mapping[Kind, Doing], crew: Crew, board: Board, progress: Progress
) -> None:
    def perform(stage: Stage, hand: Hand | None) -> None:
        doing[stage.kind](stage, hand)  # type: ignore[arg-type]  # only the report has none, and takes none

    dispatcher = Dispatcher(crew, perform, board.say)
    try:
        dispatcher.run(stages)
    except HeadGoneError:
        raise  # nobody is left to be told
    except BaseException:
        dispatcher.stop(SECONDS_TO_STOP)
        raise
    finally:
        progress.finish()


@dataclass(frozen=True)
class _Remarks(Silent):
    """Passes on remarks alone."""

    board: Board

    def say(self, text: str) -> None:
        """Say it on the board."""
        self.board.say(text)
