"""Kill workers and the command itself at random moments of ``rsoup run --ray``: it has to end all the same.

    python tests/benchmarks/kills.py [--kills 20] [--seed 0]

A small run is made undisturbed, without Ray; then with Ray on this machine, again and again, while a random process of
it gets SIGKILL every few seconds: a worker at its stage, or the command, which is then given again. At the end the
results have to be the same bytes, and so the adapters' weights.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import build_tiny_model, recipe_content, write_recipe

SAME = ("eval/results.json", "eval/samples.parquet", *(f"adapters/{name}/adapter_model.safetensors" for name in
        ("init", "positive", "brief", "morl-0.50-0.50")))  # fmt: skip
SECONDS = 3.0, 12.0
"""The shortest and the longest time between two kills."""


def main() -> None:
    """Kill, continue and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, kills, rounds = random.Random(asked.seed), {"worker": 0, "command": 0}, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_tiny_model(folder / "model", seed=0)
        undisturbed = _recipe(folder, "undisturbed")
        subprocess.run(_command(undisturbed)[:-1], check=True, capture_output=True)
        while sum(kills.values()) < asked.kills:
            rounds += 1
            killed = _recipe(folder, f"killed-{rounds}")
            _disturbed(killed, chance, kills, asked.kills)
            for name in SAME:
                one, other = (recipe.parent / "run" / name for recipe in (undisturbed, killed))
                assert one.read_bytes() == other.read_bytes(), f"{name} came out otherwise"
            left = [str(path) for path in (killed.parent / "run").rglob("*.partial")]
            assert not left, left
            print(f"run {rounds}: the same, after {kills}", flush=True)


def _recipe(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    content = recipe_content(folder / name, folder / "model")
    content["task"]["data"] = str(recipe_content(folder, folder / "model")["task"]["data"])
    content["training"] |= {"steps": 60, "checkpoint_every": 3}
    content["evaluation"]["lambdas"] = 5
    return write_recipe(folder / name / "recipe.yaml", content)


def _command(recipe: Path) -> list[str]:
    return [sys.executable, "-m", "rsoup", "run", str(recipe), "--ray"]


def _disturbed(recipe: Path, chance: random.Random, kills: dict[str, int], most: int) -> None:
    """Give the command until it is done, killing what there is to kill meanwhile."""
    process = subprocess.Popen(_command(recipe), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while True:
        try:
            _, err = process.communicate(timeout=chance.uniform(*SECONDS))
        except subprocess.TimeoutExpired:
            if sum(kills.values()) < most:
                _kill_one(process, chance, kills)
            continue
        if process.returncode == 0:
            return
        print(f"  ended by {process.returncode}; again", flush=True)
        assert process.returncode == -9 or "its worker was lost" in err, err
        process = subprocess.Popen(_command(recipe), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _kill_one(process: subprocess.Popen[str], chance: random.Random, kills: dict[str, int]) -> None:
    workers = _workers(process)
    if chance.random() < 0.7:
        while not workers and process.poll() is None:
            time.sleep(0.2)
            workers = _workers(process)
        time.sleep(chance.uniform(0, 5))
        if workers := _workers(process):
            chance.choice(workers).kill()
            kills["worker"] += 1
        return
    process.kill()
    kills["command"] += 1
    began = time.monotonic()
    while any(own.is_running() for own in workers) and time.monotonic() - began < 30:
        time.sleep(0.1)


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    with suppress(psutil.Error):
        for own in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [own] if any("Workshop" in word for word in own.cmdline()) else []
    return found


if __name__ == "__main__":
    main()
