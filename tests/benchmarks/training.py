"""One training step of rsoup's PPO beside TRL's trainers on the same work, and where rsoup's time goes.

python tests/benchmarks/training.py [--trl112 PYTHON] [--rounds N]

The work: SmolLM2-135M (in bfloat16 where the machine computes in it, else in float32), LoRA of rank 8, 8 prompts of 80
tokens, 8 completions of at most 20 tokens each, one optimisation pass, KL against the start, the reward positive. Each
side is a process of its own; the sides take turns, and the first step of each process, which is slower, does not count.
The memory is that of the GPU, if there is one. On a machine that does other things too, set OMP_NUM_THREADS=1 and read
the processor's seconds: threads that wait for each other make the wall's useless.

TRL 1.12's PPO (PYTHON is one that has it) cannot do quite the same. What differs there: its reward model reads token
ids, so it gets a one-layer model with random weights; its value function is a second SmolLM2, of which only the last
layer is trained; it samples all 20 tokens and cuts what follows the end; a prompt's completions are rows of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from measure import Cost, run
from tables import show
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from work import DTYPE, Work, base_folder, examples_for, make_policy, product_rate, run_ppo

from rsoup.models import products

HERE = Path(__file__).parent
WORK = Work()
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "mkldnn", "aten::matmul"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "casts and copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::index", "aten::gather", "aten::to"),
    "softmax over words": ("softmax", "logsumexp", "aten::cumsum", "aten::searchsorted", "aten::exp", "aten::amax"),
    "elementwise": ("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::silu", "aten::pow", "aten::mean",
                    "aten::rsqrt", "aten::neg", "aten::sum"),
    "allocation": ("aten::empty", "aten::resize", "aten::fill_", "aten::zero", "aten::detach"),
}  # fmt: skip
"""What the profiler's operations are counted as, by the beginning of or a part of their name."""


Steps = list[dict[str, float]]


def timed(command: list[str | Path], out: Path) -> tuple[Steps, Cost]:
    """Run a side and return what its steps but the first took, and what the process cost."""
    cost = run([*command, out])
    return json.loads(out.read_text())[1:], cost


def compare(trl112: str | None, rounds: int) -> None:
    """Print the sides' samples per second, their ratio to rsoup's, and their peak memory."""
    with tempfile.TemporaryDirectory() as name:
        out, prompts = Path(name) / "out.json", Path(name) / "prompts.json"
        prompts.write_text(json.dumps([list(example.tokens) for example in examples_for(WORK)]))
        own = [sys.executable, "-W", "ignore", HERE / "training_sides.py"]
        sides: dict[str, Callable[[], tuple[Steps, Cost]]] = {
            "rsoup PPO": lambda: timed([*own, "rsoup", "5"], out),
            "TRL 1.16 GRPO": lambda: timed([*own, "grpo", "3"], out),
        }
        if trl112 and Path(trl112).exists():
            other = [trl112, "-W", "ignore", HERE / "training_trl112.py", base_folder(), DTYPE, prompts, "3"]
            sides["TRL 1.12 PPO"] = lambda: timed(other, out)
        seconds: dict[str, Steps] = {side: [] for side in sides}
        peaks: dict[str, int] = dict.fromkeys(sides, 0)
        for _ in range(rounds):
            for side, measure in sides.items():
                steps, cost = measure()
                seconds[side] += steps
                peaks[side] = max(peaks[side], *(int(step.get("gpu", cost.peak)) for step in steps))
    wall, cpu = ({side: _median(steps, key) for side, steps in seconds.items()} for key in ("seconds", "cpu"))
    rows = []
    for side, steps in seconds.items():
        found = [step["seconds"] for step in steps]
        rows.append([
            side,
            f"{wall[side]:.2f} ({min(found):.2f}-{max(found):.2f})",
            f"{cpu[side]:.2f}",
            f"{WORK.samples / wall[side]:.2f}",
            f"{wall[side] / wall['rsoup PPO']:.2f}",
            f"{cpu[side] / cpu['rsoup PPO']:.2f}",
            f"{statistics.fmean(step['tokens'] for step in steps):.1f}",
            f"{peaks[side] / 1e9:.2f} GB",
        ])  # fmt: skip
    times = "s per step (range)", "processor s", "samples per s", "slower by", "by the processor"
    print(f"The base is in {DTYPE}.")
    show(["side", *times, "tokens", "peak memory"], rows)


def _median(steps: Steps, key: str) -> float:
    return statistics.median(step[key] for step in steps)


def _flops_of_packed(rows: torch.Size, weight: torch.Size, *_: object, out_shape: object = None) -> int:
    """Return the operations of rows W^T; the counter does not know oneDNN's product."""
    return 2 * rows.numel() * weight[0]


def account() -> None:
    """Print how much of the machine's rate of matrix products a step reaches, and what it spends its time on."""
    policy, examples = make_policy(), examples_for(WORK)
    run_ppo(policy, examples, WORK, 1)  # warm
    key = "cpu" if torch.get_num_threads() == 1 else "seconds"
    seconds = _median(run_ppo(policy, examples, WORK, 4), key)
    packed = {torch.ops.mkldnn._linear_pointwise: _flops_of_packed} if products.packs() else {}
    with FlopCounterMode(display=False, custom_mapping=packed) as counter:
        run_ppo(policy, examples, WORK, 1)
    flops = counter.get_total_flops()
    rates = {shape: product_rate(*shape) for shape in ((2048, 2048, 2048), (1872, 576, 1536), (64, 576, 1536))}
    reached = flops / seconds
    print(f"A step is {flops / 1e12:.2f} TFLOP of products in {seconds:.2f} s: {reached / 1e9:.0f} GFLOP/s.")
    shares = [
        [f"({rows} x {inner}) ({inner} x {columns})", f"{rate / 1e9:.0f}", f"{reached / rate:.0%}"]
        for (rows, inner, columns), rate in rates.items()
    ]
    show([f"{DTYPE} product", "GFLOP/s", "of which the step reaches"], shares)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run_ppo(policy, examples, WORK, 1)
    events = [(event.key, event.self_cpu_time_total, event.count) for event in profiler.key_averages()]
    total = sum(time for _, time, _ in events)
    left = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for name, time, _ in events:
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "the rest")
        left[kind] += time
    show(["kind of operation", "share of a step"], [[kind, f"{time / total:.1%}"] for kind, time in left.items()])
    longest = sorted(events, key=lambda event: -event[1])[:14]
    show(
        ["longest operations", "share", "calls"],
        [[name, f"{time / total:.1%}", count] for name, time, count in longest],
    )


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trl112", metavar="PYTHON", help="a Python that has TRL 1.12")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=["compare", "account"])
    options = parser.parse_args()
    if options.only != "account":
        compare(options.trl112, options.rounds)
    if options.only != "compare":
        account()


if __name__ == "__main__":
    main()
