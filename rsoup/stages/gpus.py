"""All GPUs of a machine for one command: who does the stages, and a process for each GPU where there is no Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Way = Literal["here", "ray", "processes"]

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What a launcher tells the processes it starts."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def way_of(gpus: Sequence[str], environment: Mapping[str, str], *, has_ray: bool) -> Way:
    """Return who does the stages of a run on a machine with these GPUs: this process, Ray, or a process for each."""
    if len(gpus) < 2 or any(name in environment for name in LAUNCHED):
        return "here"
    return "ray" if has_ray else "processes"


def names_of(count: int, environment: Mapping[str, str]) -> list[str]:
    """Return what CUDA calls the GPUs that a process sees."""
    told = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    return told[:count] if told else [str(number) for number in range(count)]


@contextmanager
def one_process_each(gpus: Sequence[str], folder: Path, say: Callable[[str], None]) -> Iterator[list[Path]]:
    """Give this very command again for each GPU but the first, which is this process's, and yield what they write to.

    The processes share the folder of the run: each takes trainings and points that no other is at. Whatever ends the
    block ends them; they keep their last whole step. Of one that failed this is said: the others did its part.
    """
    logs = [folder / "logs" / f"gpu-{gpu.replace('/', '-')}.log" for gpu in gpus[1:]]
    processes = []
    for gpu, log in zip(gpus[1:], logs, strict=True):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            words = [sys.executable, "-m", "rsoup", *sys.argv[1:]]
            environment = {**os.environ, VISIBLE: gpu}
            own = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file
            )
            processes.append(own)
    try:
        yield logs
    finally:
        codes = [process.poll() for process in processes]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        for gpu, log, code in zip(gpus[1:], logs, codes, strict=True):
            if code:
                say(f"warning: the process of GPU {gpu} ended with code {code}, and the others did its part: see {log}")
