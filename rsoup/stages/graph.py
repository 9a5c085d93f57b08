"""What there is to do: the stages of runs as plain data, each with what it waits for and what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rsoup.evaluation.fronts import lay_fronts, name_after
from rsoup.evaluation.plan import lay_points
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.records import AdapterKind
from rsoup.recipe import START, Recipe
from rsoup.training.folders import Training, morl_name

Kind = Literal["start", "training", "point", "results", "report"]

COSTS: Mapping[Kind, float] = {"start": 1, "training": 100, "point": 1, "results": 1, "report": 1}
"""About how long a stage takes beside others: enough to tell what holds everything up."""


@dataclass(frozen=True)
class Needs:
    """What a stage occupies."""

    gpus: int = 0
    cpus: int = 0

    def __add__(self, other: Needs) -> Needs:
        return Needs(self.gpus + other.gpus, self.cpus + other.cpus)

    def fits(self, free: Needs) -> bool:
        """Tell whether that much is free."""
        return self.gpus <= free.gpus and self.cpus <= free.cpus

    def beside(self, taken: Needs) -> Needs:
        """Return what is left of this when something is taken."""
        return Needs(self.gpus - taken.gpus, self.cpus - taken.cpus)

    def on(self, machines: Needs) -> Needs:
        """Return what a stage occupies on such machines: without GPUs, cores alone."""
        return self if machines.gpus else Needs(0, self.cpus)


@dataclass(frozen=True)
class Stage:
    """A part of a run, to be begun once the stages in ``waits_for`` are done; ``run`` is the number of its recipe."""

    name: str
    kind: Kind
    run: int = 0
    waits_for: tuple[str, ...] = ()
    needs: Needs = Needs()
    training: Training | None = None
    point: PlannedPoint | None = None


def trainings_of(recipe: Recipe) -> list[Training]:
    """Return what a recipe trains, in order; nothing, if it mixes whole models."""
    if recipe.models:
        return []
    experts = [Training(reward, {reward: 1.0}, "expert") for reward in recipe.rewards]
    return [*experts, *baselines_of(recipe, recipe.morl)]


def trained_of(trainings: Sequence[Training]) -> dict[str, dict[str, float]]:
    """Return the weights of the rewards in each training, by the names of the adapters."""
    return {training.name: training.weights for training in trainings}


def check_fronts(recipe: Recipe) -> None:
    """Raise RecipeError if a front of the evaluation cannot be laid out with what the recipe trains."""
    lay_fronts([], trained_of(trainings_of(recipe)), recipe.evaluation)


def baselines_of(recipe: Recipe, weightings: Sequence[Mapping[str, float]]) -> list[Training]:
    """Return the baselines of these weights."""
    return [Training(morl_name(weights, recipe.rewards), dict(weights), "morl") for weights in weightings]


def stages_of_runs(recipes: Sequence[Recipe], others: Sequence[Sequence[str]] = ()) -> list[Stage]:
    """Return the stages of a run for each recipe, and of the report that pools them.

    ``others`` are baselines of each run that are there and that its recipe does not name.
    """
    stages: list[Stage] = []
    for run, recipe in enumerate(recipes):
        trainings = trainings_of(recipe)
        kinds: dict[str, AdapterKind] = {training.name: training.kind for training in trainings}
        kinds |= dict.fromkeys(others[run] if others else (), "morl")
        trained = stages_of_trainings(recipe, trainings, run, len(recipes))
        points = lay_fronts(
            lay_points(kinds, recipe.evaluation, recipe.seed), trained_of(trainings), recipe.evaluation
        ).points
        stages += [*trained, *stages_of_points(recipe, points, trained, run, len(recipes))]
    results = tuple(stage.name for stage in stages if stage.kind == "results")
    return [*stages, Stage("report", "report", waits_for=results)]


def stages_of_trainings(recipe: Recipe, trainings: Sequence[Training], run: int = 0, runs: int = 1) -> list[Stage]:
    """Return the stages that make a run's adapters: the start they share, and then each."""
    where = _where(recipe, runs)
    start = Stage(f"{where}adapters/{START}", "start", run, (), _needs(recipe, 1))
    needs = _needs(recipe, recipe.training.gpus)
    return [
        start,
        *(
            Stage(f"{where}adapters/{own.name}", "training", run, (start.name,), needs, training=own)
            for own in trainings
        ),
    ]


def stages_of_points(
    recipe: Recipe, points: Sequence[PlannedPoint], trained: Sequence[Stage] = (), run: int = 0, runs: int = 1
) -> list[Stage]:
    """Return the stages of an evaluation; a point waits for those of the adapters in it that are being ``trained``.

    The base waits for their start, which its KL divergence is measured to.
    """
    where, needs = _where(recipe, runs), _needs(recipe, 1)
    makers = {stage.training.name: stage.name for stage in trained if stage.training is not None}
    early = {
        name_after(of, front.after): makers[of]
        for front in recipe.evaluation.fronts.values()
        for of in front.of
        if of in makers
    }
    makers |= early
    starts = tuple(stage.name for stage in trained if stage.kind == "start")
    measured = []
    for point in points:
        waits = tuple(makers[name] for name in point.used if name in makers) or starts
        measured.append(Stage(f"{where}eval/points/{point.id}", "point", run, waits, needs, point=point))
    waits = tuple(stage.name for stage in (*trained, *measured))
    return [
        *measured,
        Stage(f"{where}eval/results", "results", run, waits, needs if recipe.evaluation.refine else Needs()),
    ]


def urgencies(stages: Sequence[Stage]) -> dict[str, float]:
    """Return how much work lies between the beginning of each stage and the end, along the longest way."""
    followers: dict[str, list[Stage]] = {stage.name: [] for stage in stages}
    for stage in stages:
        for name in stage.waits_for:
            followers[name].append(stage)
    found: dict[str, float] = {}
    for stage in reversed(stages):  # whatever waits comes later in the list
        found[stage.name] = COSTS[stage.kind] + max((found[own.name] for own in followers[stage.name]), default=0.0)
    return found


def ready(stages: Sequence[Stage], done: set[str], begun: set[str]) -> list[Stage]:
    """Return the stages that can begin, the most urgent first (list scheduling by the longest path, Hu 1961)."""
    urgent = urgencies(stages)
    waiting = [stage for stage in stages if stage.name not in begun | done and done.issuperset(stage.waits_for)]
    return sorted(waiting, key=lambda stage: -urgent[stage.name])


def fitting(waiting: Sequence[Stage], free: Needs, machines: Needs) -> list[Stage]:
    """Return the waiting stages that what is free suffices for; one that does not fit holds up none that does."""
    chosen = []
    for stage in waiting:
        needs = stage.needs.on(machines)
        if needs.fits(free):
            chosen.append(stage)
            free = free.beside(needs)
    return chosen


def _where(recipe: Recipe, runs: int) -> str:
    return f"seed-{recipe.seed}/" if runs > 1 else ""


def _needs(recipe: Recipe, gpus: int) -> Needs:
    return Needs(gpus, recipe.training.cpus)
