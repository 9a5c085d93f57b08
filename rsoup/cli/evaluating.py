"""``rsoup eval``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from rsoup.cli.display import Bars, out, results_table
from rsoup.cli.options import (
    ColumnOption,
    DataOption,
    DatasetOption,
    FormatsOption,
    JsonOption,
    ModelOption,
    OutputOption,
    RecipeArgument,
    RewardsOption,
    SeedOption,
    SetOption,
    TaskOption,
    TemplateOption,
    make_recipe,
)


def evaluate(
    recipe: RecipeArgument = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapters",
            metavar="A B ...",
            help="Adapter folders; baselines (morl) are recognised. Default: those of the run.",
            show_default=False,
        ),
    ] = None,
    lambdas: Annotated[int | None, typer.Option("--lambdas", help="Points on the line.", show_default=False)] = None,
    prompts: Annotated[int | None, typer.Option("--prompts", help="Held-out prompts.", show_default=False)] = None,
    reward: RewardsOption = None,
    format_: FormatsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    dataset: DatasetOption = None,
    data: DataOption = None,
    column: ColumnOption = None,
    template: TemplateOption = None,
    method: Annotated[str | None, typer.Option("--method", help="factors or cat.", show_default=False)] = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    allow_different_starts: Annotated[
        bool, typer.Option("--allow-different-starts", help="Mix adapters that began elsewhere.", show_default=False)
    ] = False,
    json: JsonOption = False,
) -> None:
    """Score every lambda on every reward: the base, the experts, the soups between them, the baselines."""
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.dataset": dataset,
        "task.eval_data": data,
        "task.column": column,
        "task.template": template,
        "evaluation.lambdas": lambdas,
        "evaluation.prompts": prompts,
        "evaluation.method": method,
    }
    if data is not None and task is None and recipe is None:
        flags["task.data"] = data
    resolved, names = make_recipe(recipe, settings, flags, reward or (), format_ or ())
    from rsoup.evaluation.sweep import RESULTS
    from rsoup.evaluation.sweep import evaluate as sweep
    from rsoup.experiment import adapters_of

    folders = [Path(folder) for folder in adapters] if adapters else adapters_of(resolved)
    if names:
        resolved = resolved.model_copy(update={"rewards": {name: resolved.rewards[name] for name in names}})
    folder = resolved.folder / "eval"
    with Bars() as progress:
        results = sweep(resolved, folders, folder, progress, allow_different_starts=allow_different_starts)
    if json:
        typer.echo(jsonlib.dumps(results.model_dump(mode="json", by_alias=True), indent=2))
    else:
        out.print(results_table(results))
        out.print(folder / RESULTS, soft_wrap=True)
