"""Mix two models of 1.1 billion parameters: rsoup against mergekit, each a whole process.

make mergekit && python tests/benchmarks/checkpoints.py [--mergekit PYTHON] [--layers N] [--rounds N]

PYTHON is one that has mergekit; ``make mergekit`` puts it into .venv-mergekit. Both sides compute in float32 and write
bfloat16. Their results are compared number by number: how many are not the same bfloat16, and how many differ by more
than rounding explains. Under ties, entries as large as the smallest that is kept do not count among the latter: of
those rsoup keeps the first, and mergekit what its sort leaves in front.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fixtures import LAYERS
from measure import ROOT, Cost, environment, run, run_python
from tables import show

from rsoup.adapters.tensorfile import map_tensors, read_header

MERGEKIT = ROOT / ".venv-mergekit/bin/python"
METHODS = ("linear", "slerp", "ties")
SHARE, DENSITY = 0.3, 0.5
STEP = 2.0**-7  # of bfloat16, as a share of a number, at most
EXACT = 1e-7  # what float32 may lose of sums of numbers around 0.1
FIXTURES = """
import sys; from pathlib import Path; from fixtures import write_base_folder
for name, seed in (("base", None), ("a", 1), ("b", 2)):
    write_base_folder(Path(sys.argv[1]) / name, seed=seed, layers=int(sys.argv[2]))
"""


def main() -> None:
    """Print both sides' time and memory for each method, the ratio, and how their results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, default=MERGEKIT, help="a Python that has mergekit")
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the models")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, of which the fastest counts")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--compare", nargs=2, metavar=("METHOD", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compare:
        print(json.dumps(differences(Path(options.compare[1]), options.compare[0])))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        run_python(FIXTURES, root, str(options.layers))  # as a process counts the memory of the one that began it
        size = (root / "a/model.safetensors").stat().st_size
        rows = [compared(root, method, options.mergekit, options.rounds) for method in options.methods]
    print(f"Two models of {size / 1e9:.2f} GB each.")
    shares = "share of its time", "of its memory"
    show(["method", "rsoup", "mergekit", *shares, "numbers not the same", "by more than rounding"], rows)


def compared(root: Path, method: str, python: Path, rounds: int) -> list[str]:
    """Run one method on both sides in turns, compare what they wrote, and return the method's row."""
    rsoup, mergekit = own_command(root, method), their_command(root, method, python)
    costs: dict[str, list[Cost]] = {"rsoup": [], "mergekit": []}
    for _ in range(rounds):
        for side, command in (("rsoup", rsoup), ("mergekit", mergekit)):
            shutil.rmtree(root / side, ignore_errors=True)
            os.sync()  # what is still to be written would hold up whoever writes next
            costs[side].append(run(command))
    best = {side: min(found, key=lambda cost: cost.seconds) for side, found in costs.items()}
    command = [sys.executable, __file__, "--compare", method, root]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout
    other, far, count = json.loads(told)
    mine, theirs = best["rsoup"], best["mergekit"]
    shares = f"{mine.seconds / theirs.seconds:.3f}", f"{mine.peak / theirs.peak:.3f}"
    return [method, str(mine), str(theirs), *shares, f"{other / count:.2e}", f"{far:,} of {count:,}"]


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


def differences(root: Path, method: str) -> tuple[int, int, int]:
    """Return how many numbers differ, how many by more than rounding explains, and how many there are."""
    differ = far = count = 0
    theirs, sources = dict(tensors(root / "mergekit")), [dict(tensors(root / name)) for name in ("base", "a", "b")]
    for name, array in tensors(root / "rsoup"):
        mine, beside = array.astype(np.float32), theirs[name].astype(np.float32)
        gap = np.abs(mine - beside)
        beyond = gap > STEP * np.maximum(np.abs(mine), np.abs(beside)) + EXACT
        if method == "ties":
            base, *models = (source[name].astype(np.float32) for source in sources)
            for model in models:
                beyond &= ~at_the_threshold(np.abs(model - base))
        differ += int(np.count_nonzero(gap))
        far += int(np.count_nonzero(beyond))
        count += gap.size
    return differ, far, count


def at_the_threshold(magnitude: Any) -> Any:
    """Tell which entries are as large as the smallest that ties keeps."""
    last = magnitude.size - max(1, int(DENSITY * magnitude.size))
    return magnitude == np.partition(magnitude.ravel(), last)[last]


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a model by name, mapped from their files."""
    for path in sorted(folder.glob("*.safetensors")):
        yield from map_tensors(read_header(path)).items()


if __name__ == "__main__":
    main()
