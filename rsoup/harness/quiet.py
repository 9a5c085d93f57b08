"""Keep lm-eval from the terminal: its bars, what it prints, and its warnings, which are told in the end."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from tqdm import tqdm

LOGGERS = ("lm_eval", "evaluate", "datasets")
TOLD = re.compile(r"trunc|cut|exceed", re.IGNORECASE)
"""Warnings that concern the numbers: documents that are cut to fit the context."""


class _Heard(logging.Handler):
    """Notes one message of each form, and how often there was one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: dict[str, tuple[str, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        form = re.sub(r"\d+", "0", message)
        first, count = self.found.get(form, (message, 0))
        self.found[form] = first, count + 1

    def remarks(self) -> list[str]:
        """Return what is worth telling."""
        told = [(message, count) for message, count in self.found.values() if TOLD.search(message)]
        return [f"lm-eval: {message}{f' ({count} times)' if count > 1 else ''}" for message, count in told]


@contextmanager
def quiet(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Let nothing of lm-eval reach the terminal within the block; ``say`` is told what documents were cut."""
    bar: Any = tqdm
    shown, heard = bar.__init__, _Heard()

    def hidden(self: Any, *values: Any, **settings: Any) -> None:
        shown(self, *values, **{**settings, "disable": True})

    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    try:
        bar.__init__ = hidden
        for logger in loggers:
            logger.handlers, logger.propagate = [heard], False
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        bar.__init__ = shown
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
    for remark in heard.remarks() if say is not None else ():
        assert say is not None
        say(remark)
