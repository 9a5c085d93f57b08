"""Trainings one after another against all at once on one base: time and peak memory.

    python tests/benchmarks/together.py [--trainings 3 5] [--steps 6] [--rounds 2] [--set training.prompts_per_step=8]

The quickstart's base, rows and settings, with two rewards that cost nothing (``brief`` and ``length``); baselines make
up the number of trainings. Each way is a process of its own. "in passes of one" is all at once with
``training.prompts_per_pass`` at the prompts of a mini-batch: gradients are taken of one training at a time.
Seconds are those of the steps, the first of each training left out; "whole" is the process, loading included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measure import ROOT, Cost, run
from tables import show

WAYS = ("one by one", "together", "in passes of one")
SIDE = """
import json, sys
from pathlib import Path
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.stages.graph import trainings_of
from rsoup.training.expert import train_adapter
from rsoup.training.together import train_adapters

content = json.loads(sys.argv[1])
recipe = load_recipe(Path(sys.argv[2]), content["settings"], content["flags"])
resolved = resolve(recipe)
if recipe.training.together:
    train_adapters(resolved, trainings_of(recipe), Silent())
else:
    for own in trainings_of(recipe):
        train_adapter(resolved, own.name, own.weights, own.kind, Silent())
"""


@dataclass(frozen=True)
class Side:
    """What a way took: the seconds of a step of all trainings, step by step, and the process."""

    steps: list[float]
    cost: Cost


def measured(way: str, trainings: int, steps: int, settings: list[str]) -> Side:
    """Train in one way, in a process of its own."""
    weights = [place / (trainings - 1) for place in range(1, trainings - 1)]
    with tempfile.TemporaryDirectory() as name:
        flags = {
            "output": name,
            "rewards": {"brief": None, "length": {"target": 8}},
            "morl": [{"brief": 1 - weight, "length": weight} for weight in weights],
            "training.steps": steps,
            "training.checkpoint_every": steps,
            "training.together": way != "one by one",
        }
        asked = {"settings": settings, "flags": flags}
        if way == "in passes of one":
            from rsoup.recipe_file import load_recipe

            training = load_recipe(ROOT / "recipes/quickstart.yaml", settings).training
            flags["training.prompts_per_pass"] = training.prompts_per_step // training.ppo.mini_batches
        cost = run([sys.executable, "-W", "ignore", "-c", SIDE, json.dumps(asked), ROOT / "recipes/quickstart.yaml"])
        ends = [
            [0.0, *(json.loads(line)["seconds"] for line in path.read_text().splitlines())]
            for path in Path(name).glob("adapters/*/metrics.jsonl")
        ]
    assert len(ends) == trainings
    taken = [sum(own[step + 1] - own[step] for own in ends) for step in range(1, steps)]
    return Side(taken, cost)


def compare(trainings: int, steps: int, rounds: int, settings: list[str]) -> None:
    """Print what the ways take for so many trainings."""
    found: dict[str, list[Side]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, sides in found.items():
            sides.append(measured(way, trainings, steps, settings))
    every = {way: [step for side in sides for step in side.steps] for way, sides in found.items()}
    usual, whole = statistics.median(every[WAYS[0]]), min(side.cost.seconds for side in found[WAYS[0]])
    rows = []
    for way, sides in found.items():
        own, process = every[way], min(side.cost.seconds for side in sides)
        middle, peak = statistics.median(own), max(side.cost.peak for side in sides)
        step = f"{middle:.2f} ({min(own):.2f}-{max(own):.2f})"
        rows.append(
            [way, step, f"{middle / usual:.2f}", f"{process:.1f}", f"{process / whole:.2f}", f"{peak / 1e9:.2f} GB"]
        )
    show([f"{trainings} trainings", "s a step of all (range)", "ratio", "whole, s", "ratio", "peak memory"], rows)


def main() -> None:
    """Compare the ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainings", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    for trainings in options.trainings:
        compare(trainings, options.steps, options.rounds, options.settings)


if __name__ == "__main__":
    main()
