"""``rsoup init``."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rsoup.cli.completion import complete_base, complete_reward, offering
from rsoup.cli.display import err, folded, out, say, show_error
from rsoup.errors import RecipeError, RsoupError, did_you_mean

if TYPE_CHECKING:
    from rsoup.starting import Answers, Look

T = TypeVar("T")


def init(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="Rows: a file, a folder, a hub id, or a bundled task.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Base model: bundled name, folder or hub id.",
            show_default=False,
            autocompletion=complete_base,
        ),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            "-r",
            metavar="[NAME=]REWARD",
            help="Two or more: of the registry, file.py (all its functions), file.py:function, a classifier.",
            show_default=False,
            autocompletion=complete_reward,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="try|real",
            help="Done in minutes, or a real experiment.",
            show_default=False,
            autocompletion=offering("try", "real"),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The recipe to write.", show_default=False),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", help="Column that holds the text. Default: by the rows' shape.", show_default=False),
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Column that holds a reference answer.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Split of the data set.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what is proposed.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not look up the models: they are on another machine.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a recipe for your data: five questions, or flags. It is resolved before it is written."""
    from rsoup.starting import SIZES, Answers, default_base, look, read_rewards, remarks_on, suggest

    asker = _Asker(yes=yes)
    if output is not None:
        _refuse_existing(output, overwrite=overwrite)

    def seen_in(source: str) -> Look:
        return look(source, column, reference, split)

    source, seen = asker.ask("data", data, "reviews", seen_in, "a file, a folder, a hub id; or a bundled task")
    for line in [*seen.lines, *remarks_on(seen)]:
        say(f"  {line}")
    known = default_base()
    base, _ = asker.ask(
        "model", model, known, _base, "base model: a folder, a hub id, or a bundled name", "--model NAME"
    )
    proposed = " ".join(suggest(seen))
    words = " ".join(reward) if reward else None
    _, rewards = asker.ask(
        "rewards",
        words,
        proposed,
        lambda text: suggest(seen) if text == proposed else read_rewards(text, seen),
        "two or more: of rsoup rewards, file.py, file.py:function, a classifier, NAME=judge",
        "--reward NAME",
    )
    choices = "; ".join(f"{name}: {one.what}" for name, one in SIZES.items())
    chosen, _ = asker.ask("size", size, "try", lambda text: _one_of(text, SIZES, "--size"), choices)
    default = str(output or f"{_name_of(source)}.yaml")
    _, path = asker.ask(
        "file", str(output) if output else None, default, lambda text: _target(text, overwrite=overwrite), "to write"
    )
    answers = Answers(_name_of(path.name), base, rewards, chosen, seen)
    _write(answers, path, check=not no_check)


class _Asker:
    """Takes an answer from a flag, a proposal or a person, who is asked again until it can be used."""

    def __init__(self, *, yes: bool) -> None:
        self._asks = not yes and sys.stdin.isatty() and sys.stderr.isatty()
        self._yes = yes

    def ask(
        self, what: str, given: str | None, proposed: str | None, read: Callable[[str], T], said: str, flag: str = ""
    ) -> tuple[str, T]:
        """Return an answer as it was given and as it is read."""
        if given is not None:
            return given, read(given)
        if not self._asks:
            if self._yes and proposed is not None:
                say(f"{what}: {proposed}")
                return proposed, read(proposed)
            if self._yes:
                raise RecipeError(f"{what}: nothing can be proposed here.", f"Give {flag}.")
            raise RecipeError(
                f"{what}: is not given, and questions need a terminal.",
                "Give --yes to take what is proposed, or the flags (rsoup init --help).",
            )
        while True:
            shown = f" [{proposed}]" if proposed is not None else ""
            err.print(folded(f"{what} ({said}){shown}:", err, indent=2), end=" ", markup=False, soft_wrap=True)
            line = sys.stdin.readline()
            if not line:
                raise RecipeError(f"{what}: the input ended before an answer.", "Answer, or give --yes.")
            text = line.strip() or proposed or ""
            if not text:
                continue
            try:
                return text, read(text)
            except RsoupError as problem:
                show_error(problem)


def _base(text: str) -> str:
    from rsoup.there import check_model

    check_model(text)
    return text


def _one_of(text: str, known: object, flag: str) -> str:
    names = list(known)  # type: ignore[call-overload]
    if text not in names:
        raise RecipeError(f"{flag} {text}: is none of {', '.join(names)}.", did_you_mean(text, names))
    return text


def _name_of(source: str) -> str:
    """Return a name for a run, after its data or its file."""
    stem = Path(source.rstrip("/")).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "mine"


def _target(text: str, *, overwrite: bool) -> Path:
    path = Path(text).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(f"{path.name}.yaml")
    _refuse_existing(path, overwrite=overwrite)
    return path


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise RecipeError(f"{path}: is a folder.", "Give a file: -o mine.yaml")
    if path.exists() and not overwrite:
        raise RecipeError(f"{path}: is there already.", "Give another file (-o), or --overwrite.")


def _write(answers: Answers, path: Path, *, check: bool) -> None:
    """Compose the recipe, resolve it, and only then write it."""
    from dataclasses import replace

    from rsoup.files import write_text
    from rsoup.recipe_file import parse_recipe_text
    from rsoup.starting import check as resolve_recipe
    from rsoup.starting import compose, takes_chat
    from rsoup.starting.rewarding import missing

    for name, line in missing(answers.rewards).items():
        raise RecipeError(f"The reward {name} needs a package that is not installed.", f"Install it: {line}")
    looked = check and importlib.util.find_spec("torch") is not None
    texts = answers.seen.task.name is None and not answers.seen.talks
    if texts and looked:
        with err.status("looking at the model"):
            answers = replace(answers, chat=takes_chat(answers.base))
    text = compose(answers, str(path))
    parse_recipe_text(text, str(path))
    if looked:
        with err.status("resolving the recipe"):
            failures = resolve_recipe(text, path)
        for failure in failures:
            say(f"warning: {failure}")
    elif check:
        say("torch is not installed here, so the models were not looked up.")
    write_text(path, text)
    out.print(str(path), markup=False, soft_wrap=True)
    for when, command in (("next", f"run {path} --tiny"), ("then", f"rewards check {path}"), ("", f"run {path}")):
        say(f"{when:<6}rsoup {command}")
