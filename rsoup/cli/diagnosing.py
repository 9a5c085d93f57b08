"""``rsoup doctor``."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from rsoup.cli.display import err, folded, out, tell
from rsoup.cli.options import JsonOption

if TYPE_CHECKING:
    from rsoup.doctor.findings import Facts

COLOURS = {"broken": "bold red", "refused": "yellow", "slow": "yellow", "note": "dim"}


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Import nothing: no devices, no proof that packages work.")
    ] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Also ask whether the hub answers.")] = False,
    json: JsonOption = False,
) -> None:
    """What is installed, what this machine has, what will be slow or refused on it. Exit code 1 if a part is broken."""
    from rsoup.doctor import ask_hub, examine, look

    facts = look(Path.cwd())
    if not json:
        _show_machine(facts)
    if hub:
        facts = ask_hub(facts)
    if not quick:
        with err.status("") as status:
            facts = examine(facts, lambda module: status.update(f"importing {module.partition(':')[0]}"))
    if json:
        typer.echo(jsonlib.dumps(_as_json(facts), indent=2))
    else:
        _show_found(facts)
    if not facts.usable:
        raise typer.Exit(1)


def _line(heading: str, text: str) -> None:
    tell(f"{heading:<13}{text}")


def _show_machine(facts: Facts) -> None:
    """Print what can be told at once."""
    machine = facts.machine
    _line("rsoup", f"{facts.rsoup}, Python {machine.python}, {machine.system}")
    _line("processor", f"{machine.processor}; {', '.join(machine.features) or 'no AVX2'}")
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    free = "" if machine.free_memory is None else f" ({_gib(machine.free_memory)} free)"
    _line("room", f"{cores}, {_gib(machine.memory)} of memory{free}, {_gib(machine.free_disk)} of disk free here")
    for name, value in facts.settings.items():
        _line("environment", f"{name}={value}" if value != "set" else f"{name} is set")
    _show_extras(facts)
    for name, state in facts.models.items():
        _line("model", f"{name}: {state}")
    if facts.cached:
        more = f" and {len(facts.cached) - 5} more" if len(facts.cached) > 5 else ""
        _line("hub's cache", f"{', '.join(facts.cached[:5])}{more}")


def _show_extras(facts: Facts) -> None:
    from rsoup.doctor.needs import EXTRAS
    from rsoup.installing import pip_line

    for name, lacks in facts.extras.items():
        sign = "-" if lacks else "+"
        tell(f"{f'{sign} {name}':<13}{EXTRAS[name].gives}")
        present = [f"{package} {facts.packages[package]}" for package in EXTRAS[name].packages if package not in lacks]
        if present:
            tell(f"{'':<13}{', '.join(present)}", style="dim")
        if lacks:
            tell(f"{'':<13}lacks {', '.join(lacks)}: {pip_line(name)}")


def _show_found(facts: Facts) -> None:
    """Print what the imports told, what follows from all of it, and a block to paste."""
    from rsoup.doctor import pasted
    from rsoup.doctor.findings import findings, fitting

    if facts.devices is not None:
        names = [f"{one.name}{f' ({_gib(one.memory)})' if one.memory else ''}" for one in facts.devices]
        _line("GPU", ", ".join(names) or "none")
    if facts.hub is not None:
        _line("hub", facts.hub)
    lacks = fitting(facts)
    _line("recipes", f"fit here: {', '.join(name for name, lack in lacks.items() if lack is None) or 'none'}")
    for lack in dict.fromkeys(lack for lack in lacks.values() if lack is not None):
        _line("", f"need {lack}: {', '.join(name for name, other in lacks.items() if other == lack)}")
    found = findings(facts)
    if found:
        out.print()
    for finding in found:
        what = folded(f"{finding.kind:<13}{finding.what}", out, indent=13).removeprefix(finding.kind)
        out.print(f"[{COLOURS[finding.kind]}]{finding.kind}[/]{escape(what)}", soft_wrap=True)
        tell(f"{'':<13}{finding.do}")
    out.print("\nto paste into an issue:\n")
    for line in pasted(facts).splitlines():
        out.print(f"    {line}", markup=False, soft_wrap=True)


def _as_json(facts: Facts) -> dict[str, object]:
    from rsoup.doctor import pasted
    from rsoup.doctor.findings import findings, fitting

    content = asdict(facts)
    del content["recipes"]
    return {
        "schema": 1,
        "usable": facts.usable,
        **content,
        "extras": {name: {"installed": not lacks, "lacks": lacks} for name, lacks in facts.extras.items()},
        "recipes": fitting(facts),
        "findings": [asdict(finding) for finding in findings(facts)],
        "pasted": pasted(facts),
    }


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GB"
