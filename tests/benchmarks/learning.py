"""Curves of the quickstart's positive expert with PPO, RLOO and GRPO, within 800 completions.

python tests/benchmarks/learning.py [--algos ppo rloo grpo] [--seeds 0 1 2] [--output runs/learning] [--until-reached]
                                    [--only-print]

The settings are the quickstart's, with more steps: 4 prompts of 8 completions a step, learning rate 2e-3, two
passes, KL coefficient 0.02. Each training is an ordinary run of its own folder: what is finished is not repeated, what
was interrupted goes on. TRL's trainers take several times as long as PPO. With --until-reached a training ends as
soon as the mean of three steps in a row reaches the goal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from tables import show  # noqa: E402

from rsoup.progress import Silent  # noqa: E402
from rsoup.recipe_file import load_recipe  # noqa: E402
from rsoup.resolve import resolve  # noqa: E402
from rsoup.training.expert import train_adapter  # noqa: E402

SAMPLES, EVERY, PER_STEP = 800, 160, 32
GOAL = 0.75


class Reached(KeyboardInterrupt):
    """Ends a training as Ctrl-C does."""


class Watching(Silent):
    """Ends a training when it has reached the goal."""

    def __init__(self, algo: str, seed: int, output: Path) -> None:
        self._which = algo, seed, output

    def advance(self, note: str = "") -> None:
        if reached(curve(*self._which)[0]) is not None:
            raise Reached


def train(algo: str, seed: int, output: Path, *, until_reached: bool) -> None:
    """Train one expert, or go on with it."""
    quickstart = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    steps = SAMPLES // (quickstart.training.prompts_per_step * quickstart.training.completions_per_prompt)
    training = quickstart.training.model_copy(update={"algo": algo, "steps": steps})
    folder = str(output / f"{algo}-{seed}")
    recipe = quickstart.model_copy(update={"training": training, "seed": seed, "output": folder, "morl": []})
    progress = Watching(algo, seed, output) if until_reached else Silent()
    with suppress(Reached):
        train_adapter(resolve(recipe), "positive", {"positive": 1.0}, "expert", progress)


def curve(algo: str, seed: int, output: Path) -> tuple[list[float], float]:
    """Return the mean score of each step so far and the seconds they took."""
    folder = output / f"{algo}-{seed}"
    found = [folder / kind / "positive" / "metrics.jsonl" for kind in ("adapters", "checkpoints")]
    lines = [json.loads(line) for path in found if path.is_file() for line in path.read_text().splitlines()]
    return [line["scores"]["positive"] for line in lines], lines[-1]["seconds"] if lines else 0.0


def reached(scores: list[float]) -> int | None:
    """Return after how many steps the mean of three in a row has reached the goal, None if it has not."""
    running = [statistics.fmean(scores[index - 2 : index + 1]) for index in range(2, len(scores))]
    return next((3 + index for index, mean in enumerate(running) if mean >= GOAL), None)


def tell(algos: list[str], seeds: list[int], output: Path) -> None:
    """Print the mean score of every 160 completions, and after how many three steps in a row reach the goal."""
    ends = range(EVERY, SAMPLES + 1, EVERY)
    rows: list[list[object]] = []
    for algo in algos:
        for seed in seeds:
            scores, seconds = curve(algo, seed, output)
            if not scores:
                continue
            means = [scores[(end - EVERY) // PER_STEP : end // PER_STEP] for end in ends]
            shown = [f"{statistics.fmean(part):.2f}" if part else "" for part in means]
            steps = reached(scores)
            after = steps * PER_STEP if steps else f"not in {len(scores) * PER_STEP}"
            rows.append([algo, seed, *shown, after, f"{seconds:.0f}"])
    show(["algorithm", "seed", *(f"..{end}" for end in ends), f"{GOAL} after", "seconds"], rows)


def main() -> None:
    """Train what is missing, then print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--algos", nargs="+", default=["ppo", "rloo", "grpo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/learning"))
    parser.add_argument("--until-reached", action="store_true")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    if not options.only_print:
        for seed in options.seeds:
            for algo in options.algos:
                train(algo, seed, options.output, until_reached=options.until_reached)
    tell(options.algos, options.seeds, options.output)


if __name__ == "__main__":
    main()
