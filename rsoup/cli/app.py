"""The ``rsoup`` executable: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rsoup import __version__
from rsoup.cli import evaluating, info, mixing, reporting, training
from rsoup.cli.display import err, out, show_error
from rsoup.errors import MissingPackageError, RsoupError
from rsoup.stages.address import with_address

INTERRUPTED = 130
CONTINUING = ("run", "train", "morl", "eval")
HEAVY = ("torch", "transformers", "peft", "datasets")
"""What the extra [train] brings."""

app = typer.Typer(
    name="rsoup",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(training.run)
app.command("train")(training.train)
app.command("morl")(training.morl)
app.command("mix")(mixing.mix)
app.command("eval")(evaluating.evaluate)
app.command("pareto")(reporting.pareto)
app.add_typer(info.rewards, name="rewards")
app.command("recipes")(info.recipes)


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
    sys.argv[1:] = with_address(spread("--adapters", sys.argv[1:]))
    try:
        app()
    except RsoupError as problem:
        show_error(problem)
        sys.exit(1)
    except ModuleNotFoundError as problem:
        if problem.name not in HEAVY:
            raise
        command = 'pip install "rewarded-soups[train]", or in a clone: make install'
        show_error(MissingPackageError(problem.name, "This command", command))
        sys.exit(1)
    except RuntimeError as problem:
        if type(problem).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        hint = "Lower training.prompts_per_step, training.completions_per_prompt or evaluation.batch_size."
        show_error(RsoupError("The device is out of memory.", hint))
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in rsoup recipes quickstart | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        show_error(
            RsoupError(
                f"{problem.filename or 'A file'}: {problem.strerror}.", "Check the path, the rights and the free space."
            )
        )
        sys.exit(1)
    except _Interrupted:
        goes_on = " The same command continues where it stopped." if set(CONTINUING) & set(sys.argv[1:2]) else ""
        err.print(f"\nInterrupted.{goes_on}")
        sys.exit(INTERRUPTED)


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
