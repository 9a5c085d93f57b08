"""Mix two rank-16 adapters of a 1.1B Llama: rsoup against PEFT, each a whole process.

python tests/benchmarks/mix.py [--rounds N]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Cost, run_python
from tables import show, show_growth

FIXTURES = """
import sys; from pathlib import Path; from fixtures import write_adapter_folder, write_base_folder
root = Path(sys.argv[1])
write_base_folder(root / "base")
for seed, name in enumerate("ab"): write_adapter_folder(root / name, seed, dtype=sys.argv[2])
"""
RSOUP = """
import sys; from rsoup import mixing
one, two, out, method = sys.argv[1:]
mixing.write(mixing.mix([one, two], [0.3, 0.7], method=method), out)
"""
PEFT = """
import sys, torch; from peft import PeftModel; from transformers import AutoModelForCausalLM
one, two, out, method, base = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, one, adapter_name="one")
model.load_adapter(two, adapter_name="two")
model.add_weighted_adapter(["one", "two"], [0.3, 0.7], "mix", combination_type=method)
model.save_pretrained(out, selected_adapters=["mix"])
"""


GROW = """
import sys; from pathlib import Path; from fixtures import write_adapter_folder
for seed in range(int(sys.argv[2])): write_adapter_folder(Path(sys.argv[1]) / str(seed), seed, rank=int(sys.argv[3]))
"""
MANY = """
import sys; from rsoup import mixing
*folders, out = sys.argv[1:]
mixing.write(mixing.mix(folders, [1 / len(folders)] * len(folders), method="factors"), out)
"""


def main() -> None:
    """Print both sides and the ratio, for adapters in float32 and bfloat16, then how the time grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3, help="runs of rsoup, of which the fastest counts")
    rounds = parser.parse_args().rounds
    rows: list[list[str]] = []
    for dtype in ("F32", "BF16"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run_python(FIXTURES, root, dtype)
            sizes = sum((root / name / "adapter_model.safetensors").stat().st_size for name in "ab")
            for ours, theirs in (("factors", "linear"), ("cat", "cat"), ("svd", None)):
                rows.append([f"{dtype}, {sizes / 1e6:.0f} MB", *compared(root, ours, theirs, sizes, rounds)])
    show(["adapters", "method", "rsoup", "times the adapters", "PEFT", "share of PEFT's time"], rows)
    with tempfile.TemporaryDirectory() as folder:
        show_growth("adapters of rank 16", "seconds", {n: grown(Path(folder), n, 16, rounds) for n in (2, 4, 8)})
        show_growth("rank of two adapters", "seconds", {r: grown(Path(folder), 2, r, rounds) for r in (8, 16, 32, 64)})


def compared(root: Path, ours: str, theirs: str | None, sizes: int, rounds: int) -> list[str]:
    """Run one method on both sides and return its row; PEFT's svd works on full matrices and is left out."""
    mine = fastest(lambda: run_python(RSOUP, root / "a", root / "b", root / "rsoup", ours), root / "rsoup", rounds)
    row = [ours, str(mine), f"{mine.peak / sizes:.2f}"]
    if theirs is None:
        return [*row, "", ""]
    peft = run_python(PEFT, root / "a", root / "b", root / "peft", theirs, root / "base")
    shutil.rmtree(root / "peft")
    return [*row, f"{theirs}: {peft}", f"{mine.seconds / peft.seconds:.3f}"]


def grown(root: Path, count: int, rank: int, rounds: int) -> float:
    """Return the seconds of a process that mixes so many adapters of a rank."""
    own = root / f"{count}-{rank}"
    run_python(GROW, own, str(count), str(rank))
    folders = [own / str(number) for number in range(count)]
    return fastest(lambda: run_python(MANY, *folders, own / "out"), own / "out", rounds).seconds


def fastest(make: Callable[[], Cost], out: Path, rounds: int) -> Cost:
    """Return the least cost of making a folder."""
    costs = []
    for _ in range(rounds):
        costs.append(make())
        shutil.rmtree(out)
    return min(costs, key=lambda cost: cost.seconds)


if __name__ == "__main__":
    main()
