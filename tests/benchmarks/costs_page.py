"""The page that ``costs.py`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks.costs import (
    BASELINES,
    BASES,
    FOUR_BITS,
    GPUS,
    GROUPS,
    POINTS,
    REWARDS,
    STATE,
    Kept,
    Machine,
    Plan,
    Work,
    choose,
)

WIDTH = 140


def page() -> str:
    """Return the page."""
    start = (
        "On paper: printed by `python tests/benchmarks/costs.py` from laws and from assumptions that are named here. "
        "No GPU was at hand, and none of the hours was measured. What a pass keeps for its gradients and how many "
        "operations it makes follow laws whose numbers are counted on small models (`costs.py measure`; a test counts "
        "again)."
    )
    parts = ["# What a large base costs\n", _wrapped(start), *_work(), *_assumptions(), *_memory(), *_hours()]
    return "\n".join(parts)


def _work() -> Iterator[str]:
    work = Work()
    yield "## The work\n"
    yield _wrapped(
        f"PPO with LoRA of rank {work.rank} on q, k, v and o: {work.steps} steps of {work.prompts} prompts of "
        f"{work.length} tokens with {work.group} completions of {work.tokens} tokens each, {work.epochs} epochs. All "
        f"rewards are scored at every step, by models of {work.reward / 1e9:g} billion parameters in float32. "
        f"Baselines (MORL) are the weightings in steps of a quarter, without the corners, which the experts are: "
        f"{_counts(BASELINES)}. The sweep measures {_counts(POINTS)} mixes on {work.held_out} prompts, greedily, with "
        "KL and perplexity. The bases are Llamas of the shapes of LLaMA-7B and Llama-2-70B, in bfloat16."
    )


def _counts(numbers: Mapping[int, int]) -> str:
    return ", ".join(f"{count} of {rewards} rewards" for rewards, count in numbers.items())


def _assumptions() -> Iterator[str]:
    machine, kept = Machine(), Kept()
    law = " + ".join(f"{value:g} x {name}" for name, value in vars(kept).items())
    rows = [
        ("memory of a GPU", f"{machine.memory / 1e9:g} GB, {machine.planned:.0%} of which may be filled", "assumed"),
        ("bfloat16 products", f"{machine.rate / 1e12:g} TFLOP/s", "H100 SXM's data sheet"),
        ("the share of that in passes over many tokens", f"{machine.reached:.0%}", "assumed"),
        ("bandwidth of memory", f"{machine.bandwidth / 1e12:g} TB/s", "the same data sheet"),
        ("the share of that in decoding", f"{machine.bandwidth_reached:.0%}", "assumed"),
        ("links between the GPUs of a machine", f"{machine.link / 1e9:g} GB/s one way (NVLink 4)", "the data sheet"),
        ("the share of that", f"{machine.link_reached:.0%}", "assumed"),
        ("a layer, for a token", f"at least {1e3 * machine.layer_seconds:g} ms: Python and launches", "assumed"),
        ("4 bits: a number of a layer", f"{FOUR_BITS} bytes", "NF4, scales quantised too"),
        ("4 bits: speed of passes", f"{machine.four_bits_speed:.0%} of that in bfloat16", "assumed"),
        ("a trained number", f"{STATE} bytes: itself, gradient, two moments of Adam, start", "the code"),
        ("kept for gradients, per token and layer, bytes", law, "counted on small models"),
        ("operations of a token", "2 a weight; 4 with gradients, of which the base's weights have none", "counted"),
    ]
    yield "## Assumptions\n"
    yield _table(["what", "value", "whence"], rows)


def _memory() -> Iterator[str]:
    yield "## Memory of a training, GB on each GPU\n"
    rows = []
    for shape in BASES:
        for way, plan in {
            "whole": Plan(shape, 2),
            "sharded over 8": Plan(shape, 2, 8, "sharded"),
            "whole, 4 bits": Plan(shape, 2, four_bits=True),
        }.items():
            again = replace(plan, checkpointing=True)
            parts = (plan.base, plan.state, plan.judges, plan.cache, plan.activations, again.activations)
            rows.append([shape.name, way, *map(_gigabytes, (*parts, plan.peak, again.peak))])
    kept = ["kept for gradients, a prompt a pass", "with checkpointing", "the most at once", "with checkpointing"]
    yield _table(["", "lies", "base", "what is trained", "2 reward models", "keys and values", *kept], rows)
    yield _wrapped(
        "Keys and values, of all prompts of a GPU, are gone when activations are kept for gradients. A second adapter "
        "that is trained beside the first (`training.together`) adds what is trained and what is kept; an expert that "
        "is served or mixed beside another adds a fifth of what is trained."
    )


def _hours() -> Iterator[str]:
    yield "## Hours\n"
    rows = []
    for shape in BASES:
        for rewards in REWARDS:
            for gpus in GPUS:
                plan = choose(shape, rewards, gpus)
                cells = ["does not fit", *[""] * 8] if plan is None else _cells(plan, gpus)
                rows.append([shape.name, str(rewards), str(gpus), *cells])
    heads = ["", "rewards", "GPUs", "the base lies", "GPUs a training", "prompts a pass", "GB a GPU", "s a step"]
    yield _table([*heads, "experts, h", "with baselines, h", "sweep, min", "GPU hours, experts and sweep"], rows)
    sizes = ", ".join(map(str, GROUPS[:-1]))
    yield _wrapped(
        "`auto`, a whole base on each GPU, is chosen where it fits, as in `rsoup run --ray`; where it does not, "
        "`sharded`, its layers split over the GPUs of a training, several trainings side by side by `--plan` and a "
        "scheduler; and 4 bits (`model.quantization`) where there is one GPU: evaluations are never quantised, so a "
        "sweep needs more of them. Sharded layers move between the GPUs for "
        f"every token that is sampled, which most of such a step is spent on. Of {sizes} and {GROUPS[-1]} GPUs a "
        "training the number with which the experts are done first stands there, the smaller of two that are equal. "
        "Trainings that find no GPUs wait for the next round. Loading, checkpoints and queues are not counted."
    )


def _cells(plan: Plan, gpus: int) -> list[str]:
    points = POINTS[plan.rewards]
    experts, everything = (plan.hours(gpus, count) for count in (plan.rewards, plan.rewards + BASELINES[plan.rewards]))
    sweep = plan.sweep_hours(gpus, points)
    minutes = "does not fit" if sweep is None else _short(60 * sweep)
    hours = [_short(experts), _short(everything), minutes, _short(plan.gpu_hours(plan.rewards, points))]
    how = plan.placement + (", 4 bits" if plan.four_bits else "")
    passes = f"{plan.at_once}{', checkpointing' if plan.checkpointing else ''}"
    return [how, str(plan.gpus), passes, _gigabytes(plan.peak), f"{plan.step_seconds():.1f}", *hours]


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
