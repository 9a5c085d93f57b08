"""The text of a completion, token by token: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
"""What bytes that are no whole character are decoded to."""
CONTEXT = 6
"""Tokens before a completion that decide whether it begins with a space."""


class Detokenizer:
    """Turns tokens into text as they come.

    A token's text is what it adds to the tokens before it: alone, a word may lose its space, and a character spread
    over tokens is none. ``context`` are the tokens that the completion goes on from, whose text is not repeated.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context[-CONTEXT:])
        self._begin, self._told = 0, len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that a token completes."""
        self._ids.append(token)
        return self._new(whole=True)

    def rest(self) -> str:
        """Return what was held back, at the end."""
        return self._new(whole=False)

    def _new(self, *, whole: bool) -> str:
        before = self._decode(self._ids[self._begin : self._told])
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(before) or (whole and text.endswith(BROKEN)):
            return ""
        self._begin, self._told = self._told, len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


class StopStrings:
    """Passes text on until a stop string is complete; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Return the text that may be shown; ``found`` tells whether it ends here."""
        self._held += text
        places = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)[0]], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def rest(self) -> str:
        """Return what was held back, at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` begin ``stop``."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
