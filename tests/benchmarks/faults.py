"""Disturb commands and feed them broken input, for as long as one likes; every fault is printed, one of each kind.

    python tests/benchmarks/faults.py [--only kill fuzz ...] [--works run ...] [--count 200] [--inputs 10000] [--seed 0]

``--count`` disturbances of each kind (kill, fill the disk, deny rights, corrupt files, change the recipe, give a
command twice, stop it) are shared out over the commands; ``--inputs`` broken inputs over the readers. Each ends with
the files of an undisturbed command, or with a refusal in two lines. As root it has a small disk and the rights of
another user to try.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parents[1]))
import forking
from breaking.disturbing import DISTURBANCES, RECIPES, Yard, small_disk
from breaking.fuzzing import TARGETS, Found, attempt_of, fuzz
from breaking.works import WORKS, Stock, build_stock

MEGABYTES = 64
"""Of the small disk."""
COSTLY = ("measured_models", "bases")
"""Readers of which an input takes ten times as long as one of the others: they get fewer."""


def main() -> None:
    """Do what is asked and fail if there was a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[*DISTURBANCES, "fuzz"])
    parser.add_argument("--works", nargs="*", default=list(WORKS))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    forking._context.set_forkserver_preload(
        [*forking.IMPORTED, "rsoup.report.make", "rsoup.cli", "rsoup.mixing", "breaking.troubled"]
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        (folder / "stock").mkdir()
        stock = build_stock(folder / "stock")
        faults = 0
        if kinds := [kind for kind in asked.only if kind in DISTURBANCES]:
            with small_disk(folder / "yard", MEGABYTES) as yard:
                faults += _disturb(Yard(yard, stock), kinds, asked.works, asked.count, asked.seed)
        if "fuzz" in asked.only:
            faults += _fuzz(stock, folder / "fuzz", asked.targets, asked.inputs, asked.seed)
    sys.exit(bool(faults))


def _disturb(yard: Yard, kinds: list[str], works: list[str], count: int, seed: int) -> int:
    faults: Counter[str] = Counter()
    for kind in kinds:
        own = [name for name in works if kind != "change" or name in RECIPES]
        began = time.monotonic()
        for number in range(count):
            work = WORKS[own[number % len(own)]]
            rng = random.Random(f"{kind}{seed}/{number}")
            try:
                DISTURBANCES[kind](yard, work, rng)
            except Exception as problem:
                told = str(problem) or traceback.format_exc()
                faults[f"{kind} {work.name}"] += 1
                print(f"FAULT {kind} {work.name}, number {number} of seed {seed}: {told[-2500:]}", flush=True)
        print(f"{kind}: {count} in {time.monotonic() - began:.0f} s", flush=True)
    for word, times in sorted(yard.counts.items()):
        print(f"  {word}: {times}")
    print(f"faults: {dict(faults)}", flush=True)
    return faults.total()


def _fuzz(stock: Stock, folder: Path, targets: list[str], inputs: int, seed: int) -> int:
    shares = {name: 0.1 if name in COSTLY else 1.0 for name in targets}
    faults = 0
    for name in targets:
        began = time.monotonic()
        count = round(inputs * shares[name] / sum(shares.values()))
        found: Found = fuzz(name, attempt_of(name, stock, folder), count, seed)
        faults += sum(found.counts.values())
        for kind, times in found.counts.items():
            print(f"FAULT {times} times: {kind}\n{found.faults[kind]}", flush=True)
        seconds = time.monotonic() - began
        print(f"{name}: {found.accepted} accepted, {found.refused} refused, {seconds:.0f} s", flush=True)
    return faults


if __name__ == "__main__":
    main()
