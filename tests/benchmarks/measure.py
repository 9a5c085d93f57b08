"""Run a command as a process of its own and measure its wall time and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cost:
    """What a process cost: seconds of wall time, and the most memory it held, in bytes."""

    seconds: float
    peak: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.peak / 1e6:.0f} MB"


def run_python(code: str, *arguments: str | Path) -> Cost:
    """Return the cost of a Python program given as text."""
    return run([sys.executable, "-W", "ignore", "-c", code, *arguments])


def environment() -> dict[str, str]:
    """Return the environment in which a program finds rsoup and the benchmarks' own modules."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "TQDM_DISABLE": "1"}


def run(command: Sequence[str | Path]) -> Cost:
    """Return the cost of a command; a failure ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed with exit code {process.returncode}")
    return Cost(seconds, usage.ru_maxrss * 1024)
