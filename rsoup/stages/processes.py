"""A training by several processes of a machine, each with a GPU, on behalf of one worker.

The worker starts them as a launcher does and reads what the leading one writes into a folder that they share. If it is
killed they end by themselves: another worker gets their GPUs.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rsoup.errors import RsoupError
from rsoup.progress import Progress, Silent
from rsoup.recipe import Recipe
from rsoup.resolve import resolve
from rsoup.stages.told import Stopped, Told
from rsoup.training.expert import train_adapter
from rsoup.training.folders import Training

ORDER, TOLD, PROBLEM, LOG = "order", "told", "problem", "log"
"""Files of the folder."""
PAUSE = 0.5
"""Seconds between two looks at what the processes have written."""


@dataclass(frozen=True)
class Job:
    """A training, with the places of its files on this machine."""

    recipe: Recipe
    places: Mapping[str, str]
    training: Training
    worker: int = field(default_factory=os.getpid)


def train_with(count: int, job: Job, told: Told) -> None:
    """Train an adapter with so many processes, and tell what they tell."""
    with tempfile.TemporaryDirectory(prefix="rsoup-processes-") as temporary:
        folder = Path(temporary)
        (folder / ORDER).write_bytes(pickle.dumps(job))
        (folder / TOLD).touch()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        with (folder / LOG).open("wb") as log, (folder / TOLD).open(encoding="utf-8") as lines:
            process = subprocess.Popen(
                [sys.executable, *launcher, "-m", "rsoup.stages.processes", temporary],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    time.sleep(PAUSE)
                    _pass_on(lines.readlines(), told)
                    if told.stopping:
                        process.terminate()
                        process.wait()
                        raise Stopped
            finally:
                process.kill()
        _check(process.returncode, folder, job.training.name)


def _pass_on(lines: list[str], told: Told) -> None:
    for line in lines:
        about = json.loads(line)
        if "said" in about:
            told.say(about["said"])
        else:
            told.show("", about["total"], about["done"], about["note"])


def _check(code: int, folder: Path, name: str) -> None:
    if (folder / PROBLEM).is_file():
        problem: RsoupError = pickle.loads((folder / PROBLEM).read_bytes())
        raise problem
    if code:
        last = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise RsoupError(
            f"{name}: the processes that train it ended with code {code} ({''.join(last).strip()}).",
            "Try it with training.gpus 1.",
        )


class _Written(Told):
    """Writes what is told, a line each; a line is written at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def start(self, stage: str, total: int, done: int = 0) -> None:
        super().start(stage, total, done)
        self._write_news()

    def advance(self, note: str = "") -> None:
        super().advance(note)
        self._write_news()

    def say(self, text: str) -> None:
        self._write({"said": text})

    def _write_news(self) -> None:
        news = self.news({})
        self._write({"total": news.total, "done": news.done, "note": news.note})

    def _write(self, about: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(about) + "\n")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def end_with(process: int) -> None:
    """End this process, whatever it is at, soon after another one of this machine is gone."""

    def watch() -> None:
        while is_alive(process):
            time.sleep(PAUSE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def main() -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder, leads = Path(sys.argv[1]), os.environ["RANK"] == "0"
    job: Job = pickle.loads((folder / ORDER).read_bytes())
    end_with(job.worker)
    progress: Progress = _Written(folder / TOLD) if leads else Silent()
    training = job.training
    try:
        resolved = resolve(job.recipe, job.places)
        train_adapter(resolved, training.name, training.weights, training.kind, progress)
    except RsoupError as problem:
        if leads:
            (folder / PROBLEM).write_bytes(pickle.dumps(problem))
        sys.exit(1)


if __name__ == "__main__":
    main()
