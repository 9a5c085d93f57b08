"""Functions that are called in a process of their own, which imports nothing else."""

from __future__ import annotations

import os
from typing import Any


def sleep_deeply(count: int) -> str:
    """Keep the process busy in one call of C, which looks at no signal until it is done."""
    sum(range(count))
    return "slept"


def echo(value: Any) -> Any:
    print("said beside the answer")
    return value


def fail(value: str) -> None:
    raise ValueError(value)


def own_number() -> int:
    return os.getpid()
