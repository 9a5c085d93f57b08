"""``rsoup chat``."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from rsoup.cli.display import err, folded, say, show_error
from rsoup.cli.serving import (
    AdaptersOption,
    BaseOption,
    DtypeOption,
    ExtrapolateOption,
    MethodOption,
    RunArgument,
    StartsOption,
    check_packages,
)
from rsoup.errors import RsoupError

if TYPE_CHECKING:
    from rsoup.serving.conversation import Conversation

LEFT, RIGHT, TRACK = ("\x1b[D", "\x1bOD"), ("\x1b[C", "\x1bOC"), 21
ESCAPE = 0.05
"""Seconds within which the signs of one key follow each other."""


def chat(
    run: RunArgument = None,
    model: BaseOption = None,
    adapters: AdaptersOption = None,
    method: MethodOption = None,
    dtype: DtypeOption = None,
    allow_extrapolation: ExtrapolateOption = False,
    allow_different_starts: StartsOption = False,
    system: Annotated[str, typer.Option("--system", help="A system message.", show_default=False)] = "",
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of an answer.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws at a temperature.")] = 0,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Score each answer by the run's rewards.", show_default=False)
    ] = True,
) -> None:
    """Talk to a run in the terminal, with weights that change from turn to turn."""
    check_packages("rsoup chat")
    from rsoup.serving.source import Source, check_source

    source = Source(run, model, adapters or (), method, dtype, allow_different_starts)
    check_source(source)
    from rsoup.serving.conversation import Conversation, Manner
    from rsoup.serving.opening import open_run
    from rsoup.serving.server import Settings, make_engine, make_tradeoffs

    opened = open_run(source)
    for warning in opened.warnings:
        say(f"warning: {warning}")
    settings = Settings(rows=1, extrapolate=allow_extrapolation)
    engine, tradeoffs = make_engine(opened.served, settings, say), make_tradeoffs(opened, settings)
    conversation = Conversation(opened, engine, tradeoffs, Manner(max_tokens, temperature, seed))
    conversation.instruct(system)
    known = help_for([name for name, kind, _ in opened.experts() if kind == "expert"], list(opened.rewards))
    _Terminal(conversation, known, scores=scores).run()


class _Terminal:
    """Reads lines, shows answers: answers go to stdout, everything else to stderr."""

    def __init__(self, conversation: Conversation, known: str, *, scores: bool) -> None:
        self._conversation, self._help, self._scores = conversation, known, scores
        self._told: set[str] = set()
        self._typed = sys.stdin.isatty() and sys.stderr.isatty()

    def run(self) -> None:
        """Go on until the input ends."""
        if self._typed:
            say("/help tells the commands.")
        while (line := self._read()) is not None:
            try:
                if not self._obey(line.strip()):
                    return
            except RsoupError as problem:
                show_error(problem)

    def _obey(self, line: str) -> bool:
        """Do what a line says; tell whether to go on."""
        command, _, rest = line.partition(" ")
        conversation = self._conversation
        if command in ("/quit", "/exit"):
            return False
        if command == "/weights" and rest.strip():
            conversation.weigh(rest.strip())
            say(conversation.chosen.name)
        elif command == "/weights":
            say(conversation.chosen.name)
        elif command == "/again" or (not line and self._typed):
            self._show(conversation.again())
        elif command in ("/system", "/new"):
            conversation.instruct(rest.strip()) if command == "/system" else conversation.renew()
            say("A new conversation.")
        elif command == "/help":
            say(self._help)
        elif command.startswith("/") and "/" not in command[1:]:
            raise RsoupError(f"There is no command {command}.", "/help tells them.")
        elif line:
            self._show(conversation.ask(line))
        return True

    def _show(self, pieces: Iterator[str]) -> None:
        with _stopping(self._conversation):
            for piece in pieces:
                typer.echo("".join(sign for sign in piece if sign.isprintable() or sign in "\n\t"), nl=False)
                sys.stdout.flush()
            typer.echo()
        if not self._scores:
            return
        try:
            scored = self._conversation.scores()
        except RsoupError as problem:
            self._scores = False
            say(f"The answers are not scored: {problem.message}")
            return
        needs = {name: f"it needs the column {column}." for name, column in scored.lacking.items()}
        for name, reason in {**scored.failed, **needs}.items():
            if name not in self._told:
                say(f"{name} has no scores here: {reason}")
                self._told.add(name)
        scores = {**scored.scores, **dict.fromkeys(scored.failed), **dict.fromkeys(needs)}
        if scores:
            told = "  ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in scores.items())
            err.print(f"[dim]{escape(folded(told, err))}[/]", soft_wrap=True)

    def _read(self) -> str | None:
        """Return a line, None at the end; arrows move the weights while the line is empty."""
        if not self._typed:
            line = sys.stdin.readline()
            return line if line else None
        while True:
            sys.stderr.write(f"\r\x1b[K{prompt_of(self._conversation)}")
            sys.stderr.flush()
            key = read_key()
            if key in LEFT or key in RIGHT:
                self._conversation.move(-1 if key in LEFT else 1)
                continue
            if key in ("", "\x04"):
                sys.stderr.write("\n")
                return None
            if key in ("\r", "\n"):
                sys.stderr.write("\n")
                return ""
            if key.isprintable():
                return _line_from(key, prompt_of(self._conversation))


def help_for(experts: Sequence[str], rewards: Sequence[str]) -> str:
    """Return what can be typed, with the names of a run's experts and rewards for examples."""
    models = ["base"]
    rows = []
    if experts:
        first, second = experts[0], experts[1] if len(experts) > 1 else "base"
        rest = f",{second}=0.3"
        words = "other weights, which sum to 1"
        if len(experts) == 2:
            rest, words = "", f"other weights; {second} takes the rest"
        rows.append((f"/weights {first}=0.7{rest}", words))
        models += [f"expert:{first}", f"soup:{first}=0.7,{second}=0.3"]
    if len(rewards) > 1:
        models.append(f"prefer:{rewards[0]}=0.6,{rewards[1]}=0.4")
    rows += [
        ("/weights NAME", f"a model: {', '.join(models)}"),
        ("/again", "answer the last question again, with the weights of now"),
        ("/system TEXT", "begin anew with a system message (without text: with none)"),
        ("/new", "begin anew"),
        ("/quit", "or Ctrl-D"),
    ]
    width = max(len(command) for command, _ in rows)
    lines = [f"{command:<{width}}  {words}" for command, words in rows]
    move = "left and right move between two experts, and " if len(experts) == 2 else ""
    return "\n".join([*lines, f"In a terminal, {move}Enter alone answers again."])


def prompt_of(conversation: Conversation, width: int = 80) -> str:
    """Return what stands before a line: the place between two experts, or the weights, and a sign."""
    line, position = conversation.line, conversation.position
    if line is None or position is None or len("".join(line)) + TRACK + 12 > width:
        name = conversation.chosen.name
        return f"{name if len(name) < width - 20 else name[: width - 23] + '...'} > "
    place = round(position * (TRACK - 1))
    track = "".join("o" if sign == place else "-" for sign in range(TRACK))
    return f"{line[0]} {track} {line[1]} {position:.2f} > "


def read_key() -> str:
    """Return one key of the terminal, with all the signs it sends; nothing at the end of the input."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle, termios.TCSADRAIN)  # what was typed before stays
        key = os.read(handle, 1)
        return (key + _rest_of(key, handle)).decode(errors="ignore")
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _rest_of(key: bytes, handle: int) -> bytes:
    """Return what follows the first byte of a key: the rest of a character, or of an escape sequence."""
    if key >= b"\xc0":
        return os.read(handle, 1 if key < b"\xe0" else 2 if key < b"\xf0" else 3)
    if key != b"\x1b" or not select.select([handle], [], [], ESCAPE)[0]:
        return b""
    rest = os.read(handle, 2)
    while rest[:1] == b"[" and rest[-1:] in b"0123456789;" and select.select([handle], [], [], ESCAPE)[0]:
        rest += os.read(handle, 1)
    return rest


def _line_from(key: str, prompt: str) -> str | None:
    """Return the line that begins with a key, edited as the terminal's lines are."""
    import readline  # some builds of Python have none

    sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()
    readline.set_startup_hook(lambda: readline.insert_text(key))
    try:
        return input(prompt)
    except EOFError:
        return None
    finally:
        readline.set_startup_hook()


@contextmanager
def _stopping(conversation: Conversation) -> Iterator[None]:
    """Let Ctrl-C end the answer instead of the program."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        conversation.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
