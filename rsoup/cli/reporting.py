"""``rsoup pareto``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsoup.cli.completion import complete_run
from rsoup.cli.display import out, say, show_report, title_of
from rsoup.cli.options import JsonOption

FAILED = 3
"""The exit code where a condition of --fail-if is met."""


def pareto(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Folders of runs, results.json files, a CSV of points, lm-eval's results, printed lines.",
            autocompletion=complete_run,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the report (default ./report).", show_default=False
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="NAME=VALUE", help="Hypervolume reference point.", show_default=False),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(
            "--prefer",
            metavar="NAME=W,...",
            help="Recommend a mix for these weights of the rewards.",
            show_default=False,
        ),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", metavar="NAME=VALUE", help="Choose above a floor.", show_default=False),
    ] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option(
            "--at-most", metavar="NAME=VALUE", help="Choose below a ceiling, where lower is better.", show_default=False
        ),
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="Choose the knee of the front.", show_default=False)] = False,
    choices: Annotated[
        Path | None,
        typer.Option("--choices", metavar="FILE", help="Choose by the clicks a page exported.", show_default=False),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help='Exit with 3 if this is so, as "faithful<0.5"; repeat for more.',
            show_default=False,
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="[NAME=]LABEL",
            help="What to compare: a reward, a column, a printed label, a measure (completion_tokens, kl, ...), "
            "TASK.METRIC; A-B is a difference.",
            show_default=False,
        ),
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option("--minimize", metavar="NAME", help="Lower is better; repeat for more.", show_default=False),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="CSV: the rows to read.", show_default=False),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", help="Make the chosen models here.", show_default=False),
    ] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", help="Draws for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Front, statistics, pictures, one interactive page."""
    from rsoup.report import Options, make_report

    options = Options.from_flags(
        reference=reference or [],
        prefer=prefer or [],
        at_least=at_least or [],
        at_most=at_most or [],
        minimize=minimize or [],
        knee=knee,
        choices=choices,
        fail_if=fail_if or [],
        objective=objective or [],
        where=where or [],
        bootstrap=bootstrap,
        seed=seed,
    )
    folder = output or Path("report")
    report = make_report(results, folder, options, export)
    if export is not None:
        for choice in report.choices:
            say(f"{title_of(choice)}: {export / choice.folder}")
    if json:
        typer.echo(report.model_dump_json(by_alias=True, indent=2))
    else:
        show_report(report)
        out.print(folder / "index.html", soft_wrap=True)
    if output is None or json:
        say(f"The page, its pictures and pareto.json are in {folder}{'' if output else ' (-o names another folder)'}.")
    for check in report.checks:
        say(f"{'failed' if check.failed else 'kept'}: {check.condition}: {check.words}.")
    if any(check.failed for check in report.checks):
        raise typer.Exit(FAILED)
