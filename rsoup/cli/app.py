"""The ``rsoup`` executable: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rsoup import __version__
from rsoup.cli import (
    INTERRUPTED,
    chatting,
    diagnosing,
    evaluating,
    info,
    mixing,
    reporting,
    serving,
    starting,
    training,
)
from rsoup.cli.display import err, out, show_error
from rsoup.cli.examples import epilog
from rsoup.errors import MissingPackageError, RsoupError, first_line, reason_of, see
from rsoup.installing import pip_line
from rsoup.stages.address import with_address

CONTINUING = ("run", "train", "morl", "eval")
SPREAD = ("--adapters", "--models")
"""Options that take several values at once."""
HEAVY = ("torch", "transformers", "peft", "datasets")
"""What the extra [train] brings."""

app = typer.Typer(
    name="rsoup",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": training.run,
    "train": training.train,
    "morl": training.morl,
    "mix": mixing.mix,
    "eval": evaluating.evaluate,
    "pareto": reporting.pareto,
    "serve": serving.serve,
    "chat": chatting.chat,
    "init": starting.init,
    "doctor": diagnosing.doctor,
    "recipes": info.recipes,
}
for name, command in COMMANDS.items():
    app.command(name, epilog=epilog(name))(command)
app.add_typer(info.rewards, name="rewards", epilog=epilog("rewards"))


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"rsoup {__version__}")
        raise typer.Exit


@app.callback()
def rsoup(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Rewarded soups: train one LoRA adapter per reward, once; mix their weights for any trade-off."""


class _Interrupted(BaseException):
    """Ctrl-C or a termination signal."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _Interrupted


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the input was wrong, 2 usage, 130 interrupted."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    warnings.simplefilter("ignore", FutureWarning)  # libraries speaking of each other, not to our users
    sys.argv[1:] = as_parsed(sys.argv[1:])
    try:
        app(prog_name="rsoup")
    except RsoupError as problem:
        show_error(problem)
        sys.exit(1)
    except ImportError as problem:
        show_error(_explained(problem))
        sys.exit(1)
    except RuntimeError as problem:
        if type(problem).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        hint = "Lower training.prompts_per_step, training.completions_per_prompt or evaluation.batch_size."
        hint += see("out-of-memory")
        show_error(RsoupError("The device is out of memory.", hint))
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in rsoup recipes quickstart | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        show_error(
            RsoupError(
                f"{problem.filename or 'A file'}: {reason_of(problem)}.",
                "Check the path, the rights and the free space.",
            )
        )
        sys.exit(1)
    except _Interrupted:
        goes_on = " The same command continues where it stopped." if set(CONTINUING) & set(sys.argv[1:2]) else ""
        err.print(f"\nInterrupted.{goes_on}")
        sys.exit(INTERRUPTED)


def _explained(problem: ImportError) -> RsoupError:
    """Return what a package that is missing, or that fails while it is imported, means to a user."""
    package = (problem.name or "").partition(".")[0]
    if isinstance(problem, ModuleNotFoundError) and package in HEAVY:
        command = pip_line("train")
        return MissingPackageError(package, "This command", command)
    return RsoupError(
        f"A package that this command needs cannot be imported: {first_line(problem)}.",
        "pip check names packages that do not fit each other; constraints.txt lists releases that do."
        + see("a-package-cannot-be-imported"),
    )


def as_parsed(words: list[str]) -> list[str]:
    """Return the words of a command line as the parser takes them: one value for each option."""
    for option in SPREAD:
        words = spread(option, words)
    return with_address(words)


def spread(option: str, words: list[str]) -> list[str]:
    """Write ``--option A B`` as ``--option A --option B``: the parser takes one value per option."""
    spread_words: list[str] = []
    taking = False
    for word in words:
        if word.startswith(f"{option}="):
            taking = True
            spread_words += word.split("=", 1)
        elif word.startswith("-"):
            taking = word == option
            spread_words.append(word)
        elif taking and Path(word).suffix in (".yaml", ".yml"):  # a recipe, not an adapter
            spread_words.append(word)
        elif taking and spread_words[-1] != option:
            spread_words += [option, word]
        else:
            spread_words.append(word)
    return spread_words
