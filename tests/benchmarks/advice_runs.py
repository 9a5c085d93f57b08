"""Make the runs whose pairs of adapters ``advice.py`` judges; what is there is not made again.

python tests/benchmarks/advice_runs.py FOLDER [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import combinations
from pathlib import Path

from measure import ROOT, environment

SEEDS = (1, 2, 3)


def rsoup(*words: object) -> None:
    """Run a command of rsoup; a failure ends the script."""
    subprocess.run([sys.executable, "-m", "rsoup", *map(str, words)], cwd=ROOT, env=environment(), check=True, stdout=2)


def at_all(names: list[str], *, halves: list[tuple[str, str]]) -> list[str]:
    """Return the options that measure each adapter alone and even mixes of pairs."""
    points = [f"{name}=1" for name in names] + [f"{one}=0.5,{other}=0.5" for one, other in halves]
    return [word for point in points for word in ("--at", point)]


def morl_pairs(folder: Path, recipe: str, name: str, prompts: int) -> None:
    """Measure every pair of the adapters of a run, its baselines among them."""
    adapters = sorted(path for path in (folder / name / "adapters").iterdir() if path.name != "init")
    names = [path.name for path in adapters]
    points = at_all(names, halves=list(combinations(names, 2)))
    out = folder / f"{name}-morl"
    rsoup("eval", recipe, "--adapters", *adapters, "--mix-morl", *points, "--prompts", prompts, "-o", out)


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    folder, quick = options.folder.resolve(), options.quick
    prompts = 4 if quick else 24
    less = ["--set", "training.steps=1", "--set", "evaluation.lambdas=2", "--set", "generation.max_new_tokens=6"]
    for seed in SEEDS[:2] if quick else SEEDS:
        settings = ["--set", "morl=[]", "--set", f"evaluation.prompts={prompts}", *(less if quick else [])]
        rsoup("run", "quickstart", "--seed", seed, *settings, "-o", folder / f"s{seed}")
    names = [f"{reward}{seed}" for seed in (SEEDS[:2] if quick else SEEDS) for reward in ("positive", "faithful")]
    adapters = [f"{name}={folder}/s{name[-1]}/adapters/{name[:-1]}" for name in names]
    points = at_all(names, halves=list(combinations(names, 2)))
    out = "--allow-different-starts", "-o", folder / "all"
    rsoup(
        "eval", "quickstart", "--adapters", *adapters, *points, "--prompts", prompts, *(less[2:] if quick else []), *out
    )
    if quick:
        return
    rsoup("run", "quickstart", "--set", "training.steps=2", "-o", folder / "short")
    morl_pairs(folder, "quickstart", "short", prompts)
    rsoup("run", "reasoning", "-o", folder / "reasoning")
    morl_pairs(folder, "reasoning", "reasoning", 32)


if __name__ == "__main__":
    main()
