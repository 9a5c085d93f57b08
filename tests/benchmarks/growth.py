"""Time of a PPO step against prompts, group size, prompt length and completion length: one varied at a time.

python tests/benchmarks/growth.py [prompts group prompt_tokens tokens]

With OMP_NUM_THREADS=1 it reads the processor's seconds, not the wall's.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace

import torch
from work import Work, examples_for, make_policy, run_ppo

BASE = Work(stop_at_eos=False)
VARIED = {
    "prompts": (2, 4, 8, 16),
    "group": (1, 2, 4, 8, 16),
    "prompt_tokens": (40, 80, 160, 320),
    "tokens": (5, 10, 20, 40),
}
STEPS = 3


def main() -> None:
    """Print a row per value: seconds of a step (median of two after the first), and what a completion takes."""
    policy = make_policy()
    key = "cpu" if torch.get_num_threads() == 1 else "seconds"
    print(f"{'':24}  s/step   ms/completion")
    for name in sys.argv[1:] or VARIED:
        for value in VARIED[name]:
            work = replace(BASE, **{name: value})
            lines = run_ppo(policy, examples_for(work), work, STEPS)
            seconds = statistics.median(line[key] for line in lines[1:])
            print(f"{name:14} {value:8d}   {seconds:6.2f}   {1000 * seconds / work.samples:10.0f}", flush=True)
        print()


if __name__ == "__main__":
    main()
