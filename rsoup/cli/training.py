"""``rsoup run``, ``rsoup train`` and ``rsoup morl``."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.display import Bars, out, show_report
from rsoup.cli.options import (
    ColumnOption,
    DataOption,
    JsonOption,
    ModelOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
    RewardsOption,
    SeedOption,
    SetOption,
    TaskOption,
    TemplateOption,
    make_recipe,
)
from rsoup.errors import RecipeError

StepsOption = Annotated[int | None, typer.Option("--steps", help="Rollout-and-update rounds.", show_default=False)]


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a bundled one.")],
    output: OutputOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """The whole experiment: experts, MORL baselines, soups, evaluation, report. Continues where it stopped."""
    resolved, _ = make_recipe(recipe, settings, {"output": output, "seed": seed})
    from rsoup import experiment

    with Bars() as progress:
        report = experiment.run(resolved, progress, overwrite=overwrite)
    if json:
        typer.echo(report.model_dump_json(by_alias=True, indent=2))
    else:
        show_report(report)
        out.print(resolved.folder / "report" / "index.html", soft_wrap=True)


def train(
    recipe: RecipeArgument = None,
    reward: RewardsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    data: DataOption = None,
    column: ColumnOption = None,
    template: TemplateOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train one expert adapter per given reward with PPO, from the run's shared start. Prints the adapters' folders."""
    if not reward:
        raise RecipeError("No reward is given.", "Name one or more: --reward positive. rsoup rewards lists them.")
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.data": data,
        "task.column": column,
        "task.template": template,
        "training.steps": steps,
    }
    resolved, names = make_recipe(recipe, settings, flags, reward)
    from rsoup.training.expert import train_adapter

    for name in names:
        with Bars() as progress:
            folder = train_adapter(resolved, name, {name: 1.0}, "expert", progress, overwrite=overwrite)
        out.print(folder, soft_wrap=True)


def morl(
    recipe: RecipeArgument = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="NAME=W,NAME=W",
            help="Weights of the rewards; repeat for several baselines. Default: those of the recipe.",
            show_default=False,
        ),
    ] = None,
    reward: RewardsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    data: DataOption = None,
    column: ColumnOption = None,
    template: TemplateOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train the baseline: one adapter on the weighted sum of rewards (divided by the sum of weights)."""
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.data": data,
        "task.column": column,
        "task.template": template,
        "training.steps": steps,
        "morl": [parse_weights(text) for text in weights] if weights else None,
    }
    resolved, _ = make_recipe(recipe, settings, flags, reward or ())
    if not resolved.morl:
        raise RecipeError("No weights are given.", "For example: --weights positive=0.4,faithful=0.6")
    from rsoup.training.expert import morl_name, train_adapter

    for mu in resolved.morl:
        name = morl_name(mu, resolved.rewards)
        with Bars() as progress:
            folder = train_adapter(resolved, name, mu, "morl", progress, overwrite=overwrite)
        out.print(folder, soft_wrap=True)


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
