"""How often the report's 95 % intervals hold the truth: of means, LMC gaps and a hypervolume of simulated runs.

python tests/benchmarks/coverage.py [SEEDS ...]
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import hypervolume
from rsoup.pareto.lmc import lmc_gap
from rsoup.report.evidence import gather
from rsoup.report.measured import Measured, Model

TRUTH = np.array([[0.9, 0.1], [0.7, 0.35], [0.5, 0.5], [0.2, 0.8]])
WEIGHTS = np.array([[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]])
SPREAD = 0.25  # of single scores around what seed and prompt make of them
TRIALS, DRAWS = 1000, 1000


def gap_of(scores: Floats) -> Floats:
    """Return what the inner two points lie above the chord. (..., 4, 2) -> (..., 2, 2)."""
    return lmc_gap(scores, WEIGHTS, scores[..., [0, 3], :])[..., 1:3, :]


def volume_of(scores: Floats) -> float:
    """Return the hypervolume against the origin."""
    return hypervolume(scores, np.zeros(2))


def coverage(seeds: int, prompts: int, of_seeds: float, of_prompts: float) -> tuple[float, float, float]:
    """Return the shares of trials in which the intervals of means, gaps and the hypervolume hold the truth."""
    generator = np.random.default_rng(5)
    models = tuple(Model(f"soup-{row}", "soup", {}) for row in range(len(TRUTH)))
    held: tuple[list[float], list[float], list[float]] = ([], [], [])
    for trial in range(TRIALS):
        samples = TRUTH + generator.normal(0, SPREAD, (seeds, prompts, *TRUTH.shape))
        samples += generator.normal(0, of_prompts, (prompts, 1, TRUTH.shape[1]))
        samples += generator.normal(0, of_seeds, (seeds, 1, *TRUTH.shape))
        evidence = gather(Measured(("one", "two"), models, samples.mean(axis=(0, 1)), (), samples), DRAWS, trial)
        for found, function in zip(held, (np.asarray, gap_of), strict=False):
            ends = evidence.linear(function).interval
            assert ends is not None
            found.append(float(np.mean((ends[0] <= function(TRUTH)) & (function(TRUTH) <= ends[1]))))
        low, high = evidence.estimate(volume_of).interval or (np.nan, np.nan)
        held[2].append(float(low <= volume_of(TRUTH) <= high))
    means, gaps, volumes = (float(np.mean(found)) for found in held)
    return means, gaps, volumes


def main() -> None:
    """Print a row for each size of run."""
    print("| seeds | prompts | sd of seeds | sd of prompts | means | gaps | hypervolume |")
    print("|---|---|---|---|---|---|---|")
    for seeds in [int(text) for text in sys.argv[1:]] or [1, 2, 3, 5]:
        effects = (0, 0.02, 0.05, 0.1, 0.3) if seeds > 1 else (0,)
        for prompts, of_seeds, of_prompts in itertools.product((50, 200), effects, (0, 0.2)):
            found = " | ".join(f"{share:.3f}" for share in coverage(seeds, prompts, of_seeds, of_prompts))
            print(f"| {seeds} | {prompts} | {of_seeds} | {of_prompts} | {found} |", flush=True)


if __name__ == "__main__":
    main()
