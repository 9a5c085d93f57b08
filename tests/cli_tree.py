"""The commands of the command line, and whether a line can be read by them; nothing is run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer

from rsoup.cli.app import app, as_parsed

ROOT: Any = typer.main.get_command(app)


def commands(group: Any = ROOT, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, ``rewards check`` and the group ``rewards`` among them."""
    for name, command in group.commands.items():
        yield " ".join((*before, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))


def read_line(line: str) -> None:
    """Let the parser of the command that a line names read it; it raises if it cannot."""
    program, *words = shlex.split(line, comments=True)
    assert program == "rsoup", line
    context, command = ROOT.make_context("rsoup", as_parsed(words)), ROOT
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
