"""What rsoup says when it cannot go on: one line what is wrong and where, one line what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class RsoupError(Exception):
    """The input was wrong; nothing was lost and nothing is left half-written.

    ``message`` says what is wrong and where, ``hint`` what to do next. The command line prints both
    and exits with code 1. Characters that a terminal would take for orders are spelled out.
    """

    def __init__(self, message: str, hint: str) -> None:
        self.message, self.hint = printable(message), printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error travel from one process to another as it is, whatever its kind takes."""
        return _as_it_was, (type(self), self.args, vars(self))


def _as_it_was(kind: type[RsoupError], arguments: tuple[Any, ...], content: dict[str, Any]) -> RsoupError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(content)
    return error


class RecipeError(RsoupError):
    """A recipe, or an override of one, does not say what it should."""


class DataError(RsoupError):
    """A data set is missing, or a row of it lacks what the task reads."""


class ModelError(RsoupError):
    """A base model or a reward model cannot be loaded or used."""


class RewardError(RsoupError):
    """A reward is unknown, fails, or returns what cannot be used."""


class RewardUnavailableError(RewardError):
    """A reward cannot be asked at all just now; no completion is to blame."""


class AdapterError(RsoupError):
    """An adapter cannot be read, or adapters cannot be combined as asked."""


class FailedSampleError(RewardError):
    """A reward fails on one completion, which it names."""

    def __init__(self, message: str, hint: str, *, reward: str, prompt: str, completion: str) -> None:
        super().__init__(message, hint)
        self.reward, self.prompt, self.completion = reward, prompt, completion


class ResultsError(RsoupError):
    """A results or samples file cannot be read or compared."""


class MissingPackageError(RsoupError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, needed_for: str, command: str) -> None:
        super().__init__(f"{needed_for} needs the package {package}, which is not installed.", f"Install it: {command}")


def printable(text: str) -> str:
    """Return text with what cannot be printed, but for line ends, as Python writes it: \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def see(anchor: str) -> str:
    """Return the end of a hint that names a heading of the README's section on what goes wrong."""
    return f" (README: #{anchor})"


def first_line(problem: BaseException) -> str:
    """Return the first line of an exception's text, without its full stop, or its name if it says nothing."""
    lines = str(problem).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(problem).__name__


def reason_of(problem: OSError) -> str:
    """Return why a file could not be read or written: what the system says, or else the library that raised it."""
    return problem.strerror or first_line(problem)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known word, or all of them if none is near."""
    known = sorted(known)
    folded = {name.casefold(): name for name in known}
    near = [folded[word.casefold()]] if word.casefold() in folded else []  # the same word in other cases
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    near = near or [folded[own] for own in difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)]
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known: {', '.join(known)}." if known else "None is defined."
