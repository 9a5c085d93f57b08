"""What a worker tells of the stage it is at, to be asked for by whoever gave it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from rsoup.stages.parcels import Files


class Stopped(BaseException):
    """The worker was told to stop; a training keeps its last whole step."""


@dataclass(frozen=True)
class News:
    """How far a stage is, what was said since the last news, and the files that have changed since."""

    total: int = 0
    done: int = 0
    note: str = ""
    said: tuple[str, ...] = ()
    files: Files = field(default_factory=dict)


class Told:
    """Progress of one stage, noted; ``stop`` ends the stage at its next unit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: list[str] = []
        self._total, self._done, self._ended, self._note = 0, 0, 0, ""
        self._stop = False

    def stop(self) -> None:
        """End the stage."""
        self._stop = True

    @property
    def stopping(self) -> bool:
        """Tell whether it was told to end."""
        return self._stop

    def news(self, files: Files) -> News:
        """Return what there is to tell."""
        with self._lock:
            said, self._said = tuple(self._said), []
            return News(self._total, self._done, self._note, said, files)

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Note how much there is to do, after what has been done in parts before."""
        del stage
        with self._lock:
            self._total, self._done = self._ended + total, self._ended + done

    def advance(self, note: str = "") -> None:
        """Note a unit."""
        with self._lock:
            self._done += 1
            self._note = note
        if self._stop:
            raise Stopped

    def skip(self, count: int) -> None:
        """Note units made elsewhere."""
        with self._lock:
            self._done += count

    def finish(self) -> None:
        """Let the next part begin where this one has ended."""
        with self._lock:
            self._ended = self._total

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        """Note how far it is."""
        del stage
        with self._lock:
            self._total, self._done, self._note = total, done, note

    def say(self, text: str) -> None:
        """Keep a remark."""
        with self._lock:
            self._said.append(text)
