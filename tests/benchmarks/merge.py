"""Merge a rank-16 adapter into a 1.1B Llama in bfloat16: rsoup against PEFT and against a plain copy.

python tests/benchmarks/merge.py
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Cost, run, run_python
from mix import FIXTURES

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
    """Print the three sides and the ratios; the fastest of three runs each, in turns.

    What is still to be written to the disk is written before each run, as it would hold up whoever writes next.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run_python(FIXTURES, root, "F32")
        sides: dict[str, Callable[[], Cost]] = {
            "rsoup": lambda: run_python(RSOUP, root / "a", root / "base", root / "out"),
            "PEFT": lambda: run_python(PEFT, root / "a", root / "base", root / "out"),
            "copy": lambda: run(["cp", "-r", root / "base", root / "out"]),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in sides}
        for _ in range(3):
            for name, side in sides.items():
                os.sync()
                costs[name].append(side())
                shutil.rmtree(root / "out")
        best = {name: min(found, key=lambda cost: cost.seconds) for name, found in costs.items()}
        for name, cost in best.items():
            print(f"{name:6} {cost}")
        print(f"rsoup takes {best['rsoup'].seconds / best['PEFT'].seconds:.3f} of PEFT's time")
        print(f"rsoup takes {best['rsoup'].seconds / best['copy'].seconds:.2f} times a plain copy")


if __name__ == "__main__":
    main()
