"""Call the command line within this process, and check what it refuses."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rsoup.cli import main


@dataclass(frozen=True)
class Called:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()


Command = Callable[..., Called]


def calling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Yield what calls the command line within this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["rsoup", *map(str, words)])
        code: Any = 0
        capsys.readouterr()
        with warnings.catch_warnings():
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        return Called(code, *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def assert_refused(called: Called, message: str, hint: str) -> None:
    """Check that a command ended with one line what is wrong and one line what to do."""
    errors = [line for line in called.err.splitlines() if line.startswith("error:")]
    hints = [line for line in called.err.splitlines() if line.startswith("try:")]
    assert (called.code, len(errors), len(hints)) == (1, 1, 1), called
    assert called.err.splitlines()[-2:] == [*errors, *hints]
    assert message in errors[0]
    assert hint in hints[0]
    assert "Traceback" not in called.err
    assert called.out == ""
