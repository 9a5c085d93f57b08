"""Mix two models of 1.1 billion parameters: rsoup against mergekit, each a whole process.

make mergekit && python tests/benchmarks/checkpoints.py [--mergekit PYTHON] [--layers N] [--rounds N]

PYTHON is one that has mergekit; ``make mergekit`` puts it into .venv-mergekit. Both sides compute in float32 and write
bfloat16. Their results are compared number by number: those that are not the same bfloat16, and those that differ by
more than one step of it. Under ties these are entries of equal magnitude, where both keep the first, or should.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fixtures import LAYERS, write_base_folder
from measure import ROOT, Cost, run

from rsoup.adapters.tensorfile import map_tensors, read_header

MERGEKIT = ROOT / ".venv-mergekit/bin/python"
SHARE, DENSITY = 0.3, 0.5
STEP = 2.0**-7  # of bfloat16, as a share of a number, at most


def main() -> None:
    """Print both sides' time and memory for each method, the ratio, and how their results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, default=MERGEKIT, help="a Python that has mergekit")
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the models")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, of which the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, seed in (("base", None), ("a", 1), ("b", 2)):
            write_base_folder(root / folder, seed=seed, layers=options.layers)
        size = (root / "a/model.safetensors").stat().st_size
        print(f"two models of {size / 1e9:.2f} GB each")
        for method in ("linear", "slerp", "ties"):
            compare(root, method, options.mergekit, options.rounds)


def compare(root: Path, method: str, python: Path, rounds: int) -> None:
    """Run one method on both sides in turns, and compare what they wrote."""
    rsoup, mergekit = own_command(root, method), their_command(root, method, python)
    costs: dict[str, list[Cost]] = {"rsoup": [], "mergekit": []}
    for _ in range(rounds):
        for side, command in (("rsoup", rsoup), ("mergekit", mergekit)):
            shutil.rmtree(root / side, ignore_errors=True)
            os.sync()  # what is still to be written would hold up whoever writes next
            costs[side].append(run(command))
    best = {side: min(found, key=lambda cost: cost.seconds) for side, found in costs.items()}
    print(f"{method}: rsoup {best['rsoup']}; mergekit {best['mergekit']}", end="; ")
    print(f"rsoup takes {best['rsoup'].seconds / best['mergekit'].seconds:.3f} of the time", end=", ")
    print(f"{best['rsoup'].peak / best['mergekit'].peak:.3f} of the memory")
    other, far, count = differences(root / "rsoup", root / "mergekit")
    print(f"  of {count:,} numbers {other / count:.2e} are not the same, {far / count:.2e} by more than a step")


def own_command(root: Path, method: str) -> list[str | Path]:
    """Return the command that mixes with rsoup."""
    words = [sys.executable, "-m", "rsoup", "mix", root / "a", root / "b", "--lambda", str(SHARE), "--method", method]
    more = ["--base", root / "base", "--density", str(DENSITY)] if method == "ties" else []
    return [*words, *more, "-o", root / "rsoup"]


def their_command(root: Path, method: str, python: Path) -> list[str | Path]:
    """Write the configuration of mergekit that asks for the same, and return its command."""
    models: list[dict[str, Any]] = [{"model": str(root / name)} for name in "ab"]
    config: dict[str, Any] = {"merge_method": method, "models": models, "dtype": "float32", "out_dtype": "bfloat16"}
    if method == "slerp":
        config |= {"base_model": str(root / "a"), "parameters": {"t": SHARE}}
    else:
        for model, weight in zip(models, (1 - SHARE, SHARE), strict=True):
            model["parameters"] = {"weight": weight, **({"density": DENSITY} if method == "ties" else {})}
    if method == "ties":
        config["base_model"] = str(root / "base")
    path = root / f"{method}.yml"
    path.write_text(json.dumps(config))  # which is YAML too
    return [python, "-m", "mergekit.scripts.run_yaml", path, root / "mergekit", "--no-copy-tokenizer"]


def differences(one: Path, other: Path) -> tuple[int, int, int]:
    """Return how many numbers differ, how many by more than a step of bfloat16, and how many there are."""
    differ = far = count = 0
    theirs = dict(tensors(other))
    for name, array in tensors(one):
        mine, beside = array.astype(np.float32), theirs[name].astype(np.float32)
        gap = np.abs(mine - beside)
        differ += int(np.count_nonzero(gap))
        far += int(np.count_nonzero(gap > STEP * np.maximum(np.abs(mine), np.abs(beside))))
        count += gap.size
    return differ, far, count


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a model by name, mapped from their files."""
    for path in sorted(folder.glob("*.safetensors")):
        yield from map_tensors(read_header(path)).items()


if __name__ == "__main__":
    main()
