"""What judges at endpoints were asked in this process, by the name of the reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass
class Usage:
    """Questions that were answered by the endpoint and by what was kept, and the tokens of the former."""

    calls: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def since(self, before: Usage) -> Usage:
        """Return what came after an earlier state."""
        return Usage(*(getattr(self, own.name) - getattr(before, own.name) for own in fields(self)))

    def told(self, reward: str) -> str:
        """Return a line about it."""
        return (
            f"{reward}: its judge was asked {_times(self.calls)} ({self.prompt_tokens:,} tokens read, "
            f"{self.completion_tokens:,} written); {self.kept:,} answers were there."
        )


USED: dict[str, Usage] = {}
"""By reward, since the process began."""


_NOTES: list[str] = []


def note(text: str) -> None:
    """Let something be told at the end of what is being counted."""
    _NOTES.append(text)


_SAYING: list[Callable[[str], None]] = []


def tell(text: str) -> None:
    """Say something while it is being counted, at once."""
    if _SAYING:
        _SAYING[-1](text)


def usage_of(reward: str) -> Usage:
    """Return the counts of a reward's judge, to be added to."""
    return USED.setdefault(reward, Usage())


def snapshot() -> dict[str, Usage]:
    """Return the counts as they are."""
    return {name: Usage(**vars(own)) for name, own in USED.items()}


def used_since(before: Mapping[str, Usage]) -> dict[str, Usage]:
    """Return what was asked since a snapshot; judges that were not needed are left out."""
    found = {name: own.since(before.get(name, Usage())) for name, own in USED.items()}
    return {name: own for name, own in found.items() if own.calls or own.kept}


@contextmanager
def counted(say: Callable[[str], None], at_once: Callable[[str], None] | None = None) -> Iterator[None]:
    """Tell what judges were asked within the block, and what was noted, also where it fails.

    What is to be told within the block goes to ``at_once``, if that is another place.
    """
    before = snapshot()
    _SAYING.append(at_once or say)
    try:
        yield
    finally:
        _SAYING.pop()
        while _NOTES:
            say(_NOTES.pop(0))
        for name, own in used_since(before).items():
            say(own.told(name))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
