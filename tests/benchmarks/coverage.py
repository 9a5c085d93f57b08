"""How often the report's 95 % intervals hold the truth: of means, LMC gaps and a hypervolume of simulated runs.

python tests/benchmarks/coverage.py [SEEDS ...]    four points, prompts and seeds with effects of their own
python tests/benchmarks/coverage.py crowded        hypervolumes of more and more points, which noise makes larger
"""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np

from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import hypervolumes
from rsoup.pareto.lmc import lmc_gap
from rsoup.report.evidence import gather
from rsoup.report.measured import Measured, Model

TRUTH = np.array([[0.9, 0.1], [0.7, 0.35], [0.5, 0.5], [0.2, 0.8]])
WEIGHTS = np.array([[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]])
SPREAD = 0.25  # of single scores around what seed and prompt make of them
TRIALS, FEWER_TRIALS, DRAWS = 1000, 300, 1000


def gap_of(scores: Floats) -> Floats:
    """Return what the inner two points lie above the chord. (..., 4, 2) -> (..., 2, 2)."""
    return lmc_gap(scores, WEIGHTS, scores[..., [0, 3], :])[..., 1:3, :]


def volumes_of(draws: Floats) -> Floats:
    """Return the hypervolumes of (draws, points, 2) against the origin."""
    return hypervolumes(draws, np.zeros(2))


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
        low, high = evidence.estimate(volumes_of).interval or (np.nan, np.nan)
        held[2].append(float(low <= volumes_of(TRUTH[None])[0] <= high))
    means, gaps, volumes = (float(np.mean(found)) for found in held)
    return means, gaps, volumes


def crowded(points: int, prompts: int, common: float) -> float:
    """Return the share of trials in which the interval of a quarter circle's volume holds the truth.

    ``common`` is the part of the scores' variance that all points of a prompt share.
    """
    generator = np.random.default_rng(5)
    angles = np.linspace(0, np.pi / 2, points)
    truth = 0.3 + 0.5 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    models = tuple(Model(f"soup-{row}", "soup", {}) for row in range(points))
    held = []
    for trial in range(FEWER_TRIALS):
        own, shared = SPREAD * math.sqrt(1 - common), SPREAD * math.sqrt(common)
        samples = truth + generator.normal(0, own, (1, prompts, *truth.shape))
        samples += generator.normal(0, shared, (1, prompts, 1, 2))
        evidence = gather(Measured(("one", "two"), models, samples.mean(axis=(0, 1)), (), samples), DRAWS, trial)
        low, high = evidence.estimate(volumes_of).interval or (np.nan, np.nan)
        held.append(low <= volumes_of(truth[None])[0] <= high)
    return float(np.mean(held))


def main() -> None:
    """Print a row for each size of run."""
    if sys.argv[1:] == ["crowded"]:
        print("| points | prompts | variance in common | hypervolume |")
        print("|---|---|---|---|")
        for points, prompts, common in itertools.product((11, 50, 200), (50, 200), (0, 0.7)):
            print(f"| {points} | {prompts} | {common} | {crowded(points, prompts, common):.3f} |", flush=True)
        return
    print("| seeds | prompts | sd of seeds | sd of prompts | means | gaps | hypervolume |")
    print("|---|---|---|---|---|---|---|")
    for seeds in [int(text) for text in sys.argv[1:]] or [1, 2, 3, 5]:
        effects = (0, 0.02, 0.05, 0.1, 0.3) if seeds > 1 else (0,)
        for prompts, of_seeds, of_prompts in itertools.product((50, 200), effects, (0, 0.2)):
            found = " | ".join(f"{share:.3f}" for share in coverage(seeds, prompts, of_seeds, of_prompts))
            print(f"| {seeds} | {prompts} | {of_seeds} | {of_prompts} | {found} |", flush=True)


if __name__ == "__main__":
    main()
