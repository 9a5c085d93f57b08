"""What a base of 1.1 billion parameters takes in each process, whole and with its layers split (model.placement).

    python tests/benchmarks/sharded.py [--processes 2] [--layers 22]

Prints, for each process, the bytes of the base that stay with it, the memory it holds after a pass, what was let go
given back, and the most it ever held. On a CPU the leading process reads the whole base before it is split, and what
is let go is kept for later, so peaks do not fall.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import torch
from fixtures import VOCABULARY, write_base_folder
from measure import environment

from rsoup.models.load import load_language_model
from rsoup.models.processes import this_process
from rsoup.models.sharding import resident_bytes


def main() -> None:
    """Start the processes for each placement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layers", type=int, default=22)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        write_base_folder(base, layers=asked.layers)
        _write_tokenizer(base)
        print(f"{'':10}process   resident       held       peak")
        for placement in ("auto", "sharded"):
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(asked.processes)]
            words = [sys.executable, *launch, __file__, "worker", str(base), placement]
            subprocess.run(words, env={"ACCELERATE_USE_CPU": "true", **environment()}, check=True)


def worker(base: str, placement: str) -> None:
    """Load the base, pass a few tokens through it, and print what that took."""
    assert placement in ("auto", "sharded")
    model = load_language_model(base, revision=None, dtype="bfloat16", placement=placement)  # type: ignore[arg-type]
    ids, mask = model.pad([[5, 6, 7, 8]])
    with torch.no_grad():
        model.hidden_states(ids, mask, torch.arange(4)[None])
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # rsoup has glibc keep what was let go (keep_large_buffers)
    held = psutil.Process().memory_info().rss
    figures = "".join(f"{number / 1e6:8.0f} MB" for number in (resident_bytes(model.model), held, peak))
    print(f"{placement:10}{this_process().process_index:7}{figures}", flush=True)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", unk_token="0").save_pretrained(folder)


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
