"""Disturb ``rsoup run`` at random moments: it has to end all the same, with the same bytes.

    python tests/benchmarks/kills.py [workers] [--times 20] [--seed 0]    SIGKILL to workers of --ray, or the command
    python tests/benchmarks/kills.py head [--times 5]                     SIGKILL to Ray's head, or to all of Ray
    python tests/benchmarks/kills.py stopped [--times 5] [--stop 60]      SIGSTOP to one of two that share a folder

A small run is made undisturbed, without Ray; then again and again while something of it is hit. A command that ended
early is given again. At the end the results have to be the same bytes, and so the adapters' weights. What is stopped
goes on after up to ``--stop`` seconds, or in one of four times is killed while it is stopped.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import build_tiny_model, recipe_content, write_recipe

ADAPTERS = ("init", "positive", "brief", "morl-0.50-0.50")
SAME = (
    "eval/results.json",
    "eval/samples.parquet",
    *(f"adapters/{name}/adapter_model.safetensors" for name in ADAPTERS),
)
SECONDS = 3.0, 12.0
"""The shortest and the longest time between two hits."""
HEAD = ("gcs_server",)
RAY = (*HEAD, "raylet", "Workshop", "ray::", "log_monitor", "dashboard", "monitor.py", "default_worker")
"""What the processes of Ray's head, and of all of Ray, have in their command lines."""
PATIENCE = 120.0
"""Seconds after which a command whose Ray is gone should have ended."""


@dataclass
class Disturbance:
    """What hits, how often it has, and how often it shall."""

    chance: random.Random
    most: int
    stop: float
    hits: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> bool:
        """Tell whether more is to be hit."""
        return sum(self.hits.values()) < self.most


Hit = Callable[[subprocess.Popen[bytes], Disturbance], None]


def main() -> None:
    """Disturb, continue and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=MODES, default="workers")
    parser.add_argument("--times", type=int, help="hits; 20 unless given, 5 of the head and of stopped commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=float, default=60.0, help="the longest stop, in seconds")
    asked = parser.parse_args()
    times = asked.times or (20 if asked.mode == "workers" else 5)
    own, rounds = Disturbance(random.Random(asked.seed), times, asked.stop), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_tiny_model(folder / "model", seed=0)
        undisturbed = _recipe(folder, "undisturbed")
        subprocess.run(_command(undisturbed), check=True, capture_output=True)
        while own.left:
            rounds += 1
            disturbed = _recipe(folder, f"disturbed-{rounds}")
            MODES[asked.mode](disturbed, own)
            for name in SAME:
                one, other = (recipe.parent / "run" / name for recipe in (undisturbed, disturbed))
                assert one.read_bytes() == other.read_bytes(), f"{name} came out otherwise"
            left = [str(path) for path in (disturbed.parent / "run").rglob("*.partial")]
            assert not left, left
            print(f"run {rounds}: the same, after {dict(own.hits)}", flush=True)


def _recipe(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    content = recipe_content(folder / name, folder / "model")
    content["task"]["data"] = str(recipe_content(folder, folder / "model")["task"]["data"])
    content["training"] |= {"steps": 60, "checkpoint_every": 3}
    content["evaluation"]["lambdas"] = 5
    return write_recipe(folder / name / "recipe.yaml", content)


def _command(recipe: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rsoup", "run", str(recipe), *more]


def _begun(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command; what it says goes to a file, which what it leaves behind may keep open."""
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def _on_ray(recipe: Path, own: Disturbance, hit: Hit, why: str) -> None:
    """Give the command until it is done, hitting what there is to hit; ``why`` is in what it says if it fails."""
    log = recipe.with_name("log")
    process = _begun(_command(recipe, "--ray"), log)
    while True:
        try:
            code = process.wait(own.chance.uniform(*SECONDS))
        except subprocess.TimeoutExpired:
            if own.left:
                hit(process, own)
            continue
        if code == 0:
            return
        said = log.read_text(errors="replace")
        print(f"  ended by {code}; again", flush=True)
        assert code == -9 or (code == 1 and why in said), said
        assert "Traceback" not in said, said
        process = _begun(_command(recipe, "--ray"), log)


def kill_workers(recipe: Path, own: Disturbance) -> None:
    """Kill workers, and the command itself."""
    _on_ray(recipe, own, _kill_one, "its worker was lost")


def kill_head(recipe: Path, own: Disturbance) -> None:
    """Kill Ray's head, alone or with all of Ray."""
    _on_ray(recipe, own, _kill_ray, "Ray's head is gone")


def _kill_one(process: subprocess.Popen[bytes], own: Disturbance) -> None:
    workers, what = _below(process, ("Workshop",)), own.chance.random()
    if what < 0.7:
        workers = _once_there(process, ("Workshop",), own.chance.uniform(0, 5))
        if workers:
            worker = own.chance.choice(workers)
            if what < 0.1:
                worker.suspend()
                time.sleep(own.chance.uniform(*SECONDS))
            worker.resume() if what < 0.05 else worker.kill()
            own.hits["worker stopped" if what < 0.05 else "worker"] += 1
        return
    process.kill()
    own.hits["command"] += 1
    began = time.monotonic()
    while any(worker.is_running() for worker in workers) and time.monotonic() - began < 30:
        time.sleep(0.1)


def _kill_ray(process: subprocess.Popen[bytes], own: Disturbance) -> None:
    _once_there(process, ("Workshop",), own.chance.uniform(0, 5))
    what, words = own.chance.choice((("head", HEAD), ("all of Ray", RAY)))
    hit = _below(process, words)
    for ray in hit:
        with suppress(psutil.Error):
            ray.kill()
    own.hits[what] += bool(hit)
    began = time.monotonic()
    while process.poll() is None:
        assert time.monotonic() - began < PATIENCE, "the command still waits for a Ray that is gone"
        time.sleep(0.2)
    print(f"  {what} killed: the command ended after {time.monotonic() - began:.0f} s", flush=True)


def stop_one(recipe: Path, own: Disturbance) -> None:
    """Stop one of two commands that share a folder, again and again."""
    logs = [recipe.with_name(f"log-{number}") for number in range(2)]
    both = [_begun(_command(recipe), log) for log in logs]
    while any(process.poll() is None for process in both):
        time.sleep(own.chance.uniform(*SECONDS) / 2)
        running = [process for process in both if process.poll() is None]
        if not running or not own.left:
            continue
        process = own.chance.choice(running)
        seconds, dies = own.chance.uniform(own.stop / 2, own.stop), own.chance.random() < 0.25
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL if dies else signal.SIGCONT)
        what = "stopped and killed" if dies else "stopped"
        own.hits[what] += 1
        there = "works or waits" if any(other.poll() is None for other in both if other is not process) else "had ended"
        print(f"  {what} after {seconds:.0f} s; the other {there}", flush=True)
        if dies:
            process.wait()
            place = both.index(process)
            both[place] = _begun(_command(recipe), logs[place])
    for process, log in zip(both, logs, strict=True):
        said = log.read_text(errors="replace")
        assert process.returncode == 0, said
        assert "Traceback" not in said, said
    for name in ADAPTERS[1:]:
        lines = (recipe.parent / "run" / "adapters" / name / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 60, f"{name}: {len(lines)} steps"


def _once_there(process: subprocess.Popen[bytes], words: Sequence[str], seconds: float) -> list[psutil.Process]:
    """Wait for processes of some kind, and then so long; return those that are there then."""
    while not _below(process, words) and process.poll() is None:
        time.sleep(0.2)
    time.sleep(seconds)
    return _below(process, words)


def _below(process: subprocess.Popen[bytes], words: Sequence[str]) -> list[psutil.Process]:
    """Return the processes that a command started, directly or not, whose command lines have one of some words."""
    found = []
    with suppress(psutil.Error):
        for own in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [own] if any(word in part for part in own.cmdline() for word in words) else []
    return found


MODES: dict[str, Callable[[Path, Disturbance], None]] = {
    "workers": kill_workers,
    "head": kill_head,
    "stopped": stop_one,
}

if __name__ == "__main__":
    main()
