"""Merge a rank-16 adapter into a 1.1B Llama in bfloat16: rsoup against PEFT and against a plain copy.

python tests/benchmarks/merge.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Cost, run, run_python
from mix import FIXTURES
from tables import show

RSOUP = """
import sys; from rsoup import mixing
adapter, base, out = sys.argv[1:]
mixing.merge(mixing.mix([adapter], [1.0]), base, out)
"""
PEFT = """
import sys, torch; from peft import PeftModel; from transformers import AutoModelForCausalLM
adapter, base, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
"""


def main() -> None:
    """Print the three sides and the ratios; the fastest of some runs each, in turns.

    What is still to be written to the disk is written before each run, as it would hold up whoever writes next.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run_python(FIXTURES, root, "F32")
        sides: dict[str, Callable[[], Cost]] = {
            "rsoup": lambda: run_python(RSOUP, root / "a", root / "base", root / "out"),
            "PEFT": lambda: run_python(PEFT, root / "a", root / "base", root / "out"),
            "copy": lambda: run(["cp", "-r", root / "base", root / "out"]),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                os.sync()
                costs[name].append(side())
                shutil.rmtree(root / "out")
        best = {name: min(found, key=lambda cost: cost.seconds) for name, found in costs.items()}
    own = best["rsoup"].seconds
    show(
        ["rsoup", "PEFT", "a plain copy", "share of PEFT's time", "times the copy"],
        [[*best.values(), f"{own / best['PEFT'].seconds:.3f}", f"{own / best['copy'].seconds:.2f}"]],
    )


if __name__ == "__main__":
    main()
