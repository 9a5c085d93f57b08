"""How the time of a PPO step grows: one thing varied at a time.

python tests/benchmarks/growth.py [--quick] [prompts group prompt_tokens tokens long rank model]

``long`` is completions of up to 512 tokens, of two prompts, gradients taken of one at a time; ``model`` are models of
other sizes with random weights. With OMP_NUM_THREADS=1 it reads the processor's seconds, not the wall's.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tables import show_growth
from work import BASE, SIZES, Work, examples_for, make_policy, run_ppo, write_model

USUAL = Work(stop_at_eos=False)
VARIED = {
    "prompts": ("prompts", (2, 4, 8, 16)),
    "group": ("completions of a prompt", (1, 2, 4, 8, 16)),
    "prompt_tokens": ("tokens of a prompt", (40, 80, 160, 320)),
    "tokens": ("tokens of a completion", (5, 10, 20, 40)),
}
LONG = (20, 64, 128, 256, 512)
RANKS = (4, 8, 16, 32, 64)
STEPS = 3


def seconds_of(work: Work, base: str = BASE, per_pass: int | None = None) -> float:
    """Return what a step takes: the median of those after the first."""
    gc.collect()  # a model at a time
    policy = make_policy(base, work.rank)
    key = "cpu" if torch.get_num_threads() == 1 else "seconds"
    lines = run_ppo(policy, examples_for(work), work, STEPS, per_pass=per_pass)
    return statistics.median(line[key] for line in lines[1:])


def vary(name: str, few: Callable[[tuple[object, ...]], tuple[object, ...]]) -> None:
    """Print a table for what is varied."""
    unit = "processor s" if torch.get_num_threads() == 1 else "seconds"
    if name == "long":
        work = replace(USUAL, prompts=2)
        found = {tokens: seconds_of(replace(work, tokens=tokens), per_pass=1) for tokens in few(LONG)}
        show_growth("tokens of a completion, 2 prompts", unit, found)
    elif name == "rank":
        show_growth("rank", unit, {rank: seconds_of(replace(USUAL, rank=rank)) for rank in few(RANKS)})
    elif name == "model":
        with tempfile.TemporaryDirectory() as folder:
            sizes = few(tuple(SIZES))
            found = {size: seconds_of(USUAL, str(write_model(Path(folder), size))) for size in sizes}
        show_growth("size of the model", unit, found)
    else:
        title, values = VARIED[name]
        show_growth(title, unit, {value: seconds_of(replace(USUAL, **{name: value})) for value in few(values)})


def main() -> None:
    """Print the tables asked for, else all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="what to vary")
    parser.add_argument("--quick", action="store_true", help="two values of each")
    options = parser.parse_args()
    print(
        "Seconds of a step of 8 prompts of 80 tokens, 8 completions of 20 tokens each, rank 8, unless said otherwise."
    )
    for name in options.names or (*VARIED, "long", "rank", "model"):
        vary(name, lambda values: values[:2] if options.quick else values)


if __name__ == "__main__":
    main()
