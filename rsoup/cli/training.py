"""``rsoup run``, ``rsoup train`` and ``rsoup morl``."""

from __future__ import annotations

import json as jsonlib
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli.completion import complete_recipe, offering
from rsoup.cli.display import Bars, out, say, show_report
from rsoup.cli.options import (
    ColumnOption,
    ConfigOption,
    DataOption,
    DatasetOption,
    FormatsOption,
    JsonOption,
    ModelOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
    ReferenceOption,
    RewardsOption,
    SeedOption,
    SetOption,
    SplitOption,
    SystemOption,
    TaskOption,
    TemplateOption,
    make_recipe,
)
from rsoup.cli.workers import RayOption, crew_at, crew_for
from rsoup.errors import RecipeError

if TYPE_CHECKING:
    from rsoup.experiment import Command
    from rsoup.recipe import Recipe
    from rsoup.training.folders import Training

ReportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--report-to",
        metavar="TRACKER",
        help="A tracker that gets the metrics too: tensorboard, wandb or trackio.",
        show_default=False,
        autocompletion=offering("tensorboard", "wandb", "trackio"),
    ),
]
AlgoOption = Annotated[
    str | None,
    typer.Option(
        "--algo",
        metavar="ALGO",
        help="ppo (the default), or TRL's grpo or rloo.",
        show_default=False,
        autocompletion=offering("ppo", "grpo", "rloo"),
    ),
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Rollout-and-update rounds.", show_default=False)]


def run(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file, or the name of a bundled one.",
            autocompletion=complete_recipe,
        ),
    ],
    output: OutputOption = None,
    seed: SeedOption = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            metavar="K",
            help="K runs, with the seeds from --seed (or 0) on, and one report of them.",
            show_default=False,
        ),
    ] = None,
    settings: SetOption = None,
    algo: AlgoOption = None,
    report_to: ReportOption = None,
    ray: RayOption = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print the stages as commands of their own, for several machines, and stop."),
    ] = False,
    tiny: Annotated[
        bool,
        typer.Option(
            "--tiny",
            help="Try it in a minute: random small models, few steps; made-up rows if yours are not here.",
            show_default=False,
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """The whole experiment: experts, MORL baselines, soups, evaluation, report. Continues where it stopped."""
    several = None if seeds is None else list(range(seed or 0, (seed or 0) + seeds))
    flags = {"output": output, "seed": seed, "seeds": several, "training.algo": algo, "training.report_to": report_to}
    made, _ = make_recipe(recipe, settings, flags)
    from rsoup.there import check_ingredients, check_recipe

    check_recipe(made, stands_in=tiny)
    check_ingredients(() if tiny else made.models.values())
    from rsoup import experiment
    from rsoup.resolve import resolve
    from rsoup.training.together import check_together

    if tiny:
        from rsoup.tiny import shrink, stand_ins

        whole, made = made, shrink(made, output)
        for line in stand_ins(whole, made):
            say(line)

    if plan:
        _show_plan(experiment.plan(made), json=json)
        return
    check_together(made, workers=ray is not None)
    runs = [resolve(own) for own in made.by_seed()]
    crews = crew_at(ray) if made.training.together else crew_for(ray, made)
    with crews as crew, Bars() as progress:
        report = experiment.run_all(made, runs, progress, overwrite=overwrite, crew=crew)
    if report is None:  # one of several processes, not the leading one
        return
    if json:
        typer.echo(report.model_dump_json(by_alias=True, indent=2))
        say(f"The run is in {made.folder}.")
    else:
        show_report(report)
        out.print(made.folder / "report" / "index.html", soft_wrap=True)


def train(
    recipe: RecipeArgument = None,
    reward: RewardsOption = None,
    format_: FormatsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    dataset: DatasetOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    split: SplitOption = None,
    column: ColumnOption = None,
    reference: ReferenceOption = None,
    template: TemplateOption = None,
    system: SystemOption = None,
    algo: AlgoOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    report_to: ReportOption = None,
    ray: RayOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train one expert adapter per given reward, from the run's shared start. Prints the adapters' folders."""
    if not reward:
        raise RecipeError("No reward is given.", "Name one or more: --reward positive. rsoup rewards lists them.")
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.dataset": dataset,
        "task.data": data,
        "task.config": config,
        "task.split": split,
        "task.column": column,
        "task.reference": reference,
        "task.template": template,
        "task.system": system,
        "training.algo": algo,
        "training.steps": steps,
        "training.report_to": report_to,
    }
    made, names = make_recipe(recipe, settings, flags, reward, format_ or ())
    from rsoup.training.folders import Training

    _train(made, [Training(name, {name: 1.0}, "expert") for name in names], ray, overwrite=overwrite)


def morl(
    recipe: RecipeArgument = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="NAME=W,NAME=W",
            help="Weights of the rewards; repeat for several baselines. Default: those of --format or the recipe.",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option(
            "--sweep",
            min=2,
            metavar="K",
            help="A whole baseline front: every weighting in steps of 1/K; its corners are the experts.",
            show_default=False,
        ),
    ] = None,
    reward: RewardsOption = None,
    format_: FormatsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    dataset: DatasetOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    split: SplitOption = None,
    column: ColumnOption = None,
    reference: ReferenceOption = None,
    template: TemplateOption = None,
    system: SystemOption = None,
    algo: AlgoOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    report_to: ReportOption = None,
    ray: RayOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train the baseline: one adapter on the weighted sum of rewards (divided by the sum of weights)."""
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.dataset": dataset,
        "task.data": data,
        "task.config": config,
        "task.split": split,
        "task.column": column,
        "task.reference": reference,
        "task.template": template,
        "task.system": system,
        "training.algo": algo,
        "training.steps": steps,
        "training.report_to": report_to,
        "morl": [parse_weights(text) for text in weights] if weights else None,
    }
    if sweep is not None and weights:
        raise RecipeError("Both --weights and --sweep are given.", "Give one of them.")
    made, _ = make_recipe(recipe, settings, flags, reward or (), format_ or (), weigh=sweep is None)
    from rsoup.stages.graph import baselines_of
    from rsoup.training.folders import inner_weights

    baselines = made.morl if sweep is None else inner_weights(tuple(made.rewards), sweep)
    if not baselines:
        raise RecipeError("No weights are given.", "For example: --weights positive=0.4,faithful=0.6, or --sweep 4")
    _train(made, baselines_of(made, baselines), ray, overwrite=overwrite)


def _train(made: Recipe, trainings: Sequence[Training], ray: str | None, *, overwrite: bool) -> None:
    """Train adapters, for each seed of the recipe, and print their folders."""
    from rsoup.there import check_recipe

    check_recipe(made)
    from rsoup.resolve import resolve
    from rsoup.stages.together import train_together
    from rsoup.training.expert import train_adapter
    from rsoup.training.together import check_together, train_adapters

    check_together(made, workers=ray is not None)
    runs = [resolve(own) for own in made.by_seed()]
    with crew_at(ray) as crew:
        if crew is not None:
            with Bars() as progress:
                folders = train_together(runs, trainings, crew, progress, overwrite=overwrite)
            for folder in folders:
                out.print(folder, soft_wrap=True)
            return
    with Bars() as progress:
        for own in runs:
            if made.training.together:
                train_adapters(own, trainings, progress, overwrite=overwrite)
            for training in trainings:  # those that were made together are there
                folder = train_adapter(
                    own, training.name, training.weights, training.kind, progress, overwrite=overwrite
                )
                progress.finish()
                out.print(folder, soft_wrap=True)


def _show_plan(stages: list[Command], *, json: bool) -> None:
    """Print a run's stages: a shell script that could run as it is, or JSON."""
    if json:
        typer.echo(jsonlib.dumps([asdict(stage) for stage in stages], indent=2))
        return
    for stage in stages:
        typer.echo(f"# {stage.name}: waits for {', '.join(stage.waits_for) or 'nothing'}")
        typer.echo(shlex.join(stage.command))


def parse_weights(text: str, flag: str = "--weights") -> dict[str, float]:
    """Read ``positive=0.4,faithful=0.6``."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        if name.strip() in weights:
            raise RecipeError(f"{flag} {text}: {name.strip()} is given twice.", "Give each name one weight.")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise RecipeError(f"{flag} {text}: {part!r} is not NAME=WEIGHT.", "For example: positive=0.4,faithful=0.6")
    return weights
