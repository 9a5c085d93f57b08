"""How long-running functions tell what they are doing; the command line draws it."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary


class Progress(Protocol):
    """Receives the events of a run."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage of ``total`` units begins, ``done`` of them made earlier."""

    def advance(self, note: str = "") -> None:
        """A unit of the current stage is done; ``note`` says how it went."""

    def skip(self, count: int) -> None:
        """So many units of the current stage have been made elsewhere meanwhile."""

    def finish(self) -> None:
        """The current stage is done."""

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        """So far is a stage that runs beside others."""

    def say(self, text: str) -> None:
        """Something the user should know."""


_SAID: WeakKeyDictionary[Progress, set[str]] = WeakKeyDictionary()


def say_once(progress: Progress, text: str) -> None:
    """Say something that several parts of one command find, the first time."""
    said = _SAID.setdefault(progress, set())
    if text not in said:
        said.add(text)
        progress.say(text)


class Silent:
    """Tells nothing."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, note: str = "") -> None:
        """Ignore."""

    def skip(self, count: int) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""
