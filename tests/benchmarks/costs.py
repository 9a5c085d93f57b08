"""What a run of a large base costs, on paper: memory and hours, from laws and stated constants; no GPU is asked.

    python tests/benchmarks/costs.py             print recipes/COSTS.md
    python tests/benchmarks/costs.py measure     count on small models what the laws say (a CPU will do)

Bytes kept for gradients are counted by autograd's hooks and operations by torch's counter, so that both are the same
on every machine; what a GPU makes of them in a second is assumed (``Machine``).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

WIDTH = 2
"""Bytes of a number of the base, of activations and of keys and values, in bfloat16."""
STATE = 4 + 4 + 8 + 4
"""Bytes of a trained number: itself in float32, its gradient, Adam's two moments, the start's copy."""
FOUR_BITS = 0.516
"""Bytes of a number in NF4 with its scales quantised too; embeddings and output layer stay as they are."""
CHUNK = 128
"""Rows whose logits exist at the same time."""


@dataclass(frozen=True)
class Kept:
    """Bytes that a pass keeps for its gradients, per token of its rows and layer, as ``measure`` prints them."""

    hidden: float = 18.28
    intermediate: float = 5.91
    keys: float = 0.58
    rank: float = 20.83
    row: float = 1.67


@dataclass(frozen=True)
class Machine:
    """What is assumed of a GPU: an H100 SXM by its data sheet, and which share of that is reached."""

    memory: float = 80e9
    planned: float = 0.9
    """Of the memory, what is counted on: the rest is for the driver, NCCL and holes between tensors."""
    rate: float = 989e12
    reached: float = 0.35
    """Of the rate, in passes over many tokens."""
    bandwidth: float = 3.35e12
    bandwidth_reached: float = 0.6
    link: float = 450e9
    """Bytes a second to the GPUs of the same machine, one way."""
    link_reached: float = 0.7
    layer_seconds: float = 0.5e-3
    """The least time of a layer for a token: Python and the launching of kernels."""
    four_bits_speed: float = 0.5
    """Of the speed in bfloat16, in passes over weights that are unpacked on the way."""

    def seconds(self, operations: float) -> float:
        """Return how long operations take in passes over many tokens."""
        return operations / (self.rate * self.reached)


@dataclass(frozen=True)
class Shape:
    """A Llama; ``keys`` is the width of its keys."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int

    @property
    def layer(self) -> int:
        """Numbers in the matrices of a layer."""
        return 2 * self.hidden * (self.hidden + self.keys) + 3 * self.hidden * self.intermediate

    @property
    def body(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * self.layer

    @property
    def head(self) -> int:
        """Numbers in the output layer, and in the embeddings."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All numbers."""
        return self.body + 2 * self.head + (2 * self.layers + 1) * self.hidden

    def adapter(self, rank: int) -> int:
        """Numbers in factors on q, k, v and o."""
        return self.layers * rank * (6 * self.hidden + 2 * self.keys)


@dataclass(frozen=True)
class Work:
    """What is trained and measured."""

    steps: int = 200
    prompts: int = 16
    group: int = 8
    length: int = 512
    tokens: int = 128
    epochs: int = 4
    rank: int = 16
    held_out: int = 200
    reward: float = 0.435e9
    """Numbers in a reward model (DeBERTa-v3-large), in float32 beside the base."""

    @property
    def row(self) -> int:
        """Tokens of a row: a prompt and all but the last token of its completions."""
        return self.length + self.group * (self.tokens - 1)


BASES = (
    Shape("7B", layers=32, hidden=4096, intermediate=11_008, keys=4096, vocabulary=32_000),
    Shape("70B", layers=80, hidden=8192, intermediate=28_672, keys=1024, vocabulary=32_000),
)
GPUS, REWARDS, GROUPS = (1, 8, 64), (2, 4), (1, 2, 4, 8)
BASELINES = {2: 3, 4: 31}
"""Weightings in steps of a quarter, corners left out: those are the experts."""
POINTS = {2: 11, 4: 56}
"""Mixes: in steps of a tenth between two experts, of a fifth among four."""


def forward(shape: Shape, work: Work, prompts: float) -> float:
    """Return the operations of a pass over the rows of prompts, with the log-probabilities of completions."""
    body = 2 * (shape.body + shape.adapter(work.rank)) * work.row + 4 * shape.layers * shape.hidden * work.row**2
    return prompts * (body + 2 * shape.head * work.group * work.tokens)


def learning(shape: Shape, work: Work, prompts: float) -> float:
    """Return the operations of a pass with its gradients: for the base's weights none, nor for what embeddings give."""
    first = 2 * (shape.hidden + 2 * shape.keys + 3 * work.rank) * shape.hidden
    body = (4 * shape.body + 6 * shape.adapter(work.rank) - first) * work.row
    attention = (4 + 8) * shape.layers * shape.hidden * work.row**2
    return prompts * (body + attention + 4 * shape.head * work.group * work.tokens)


def kept_bytes(shape: Shape, work: Work, prompts: float, kept: Kept | None = None) -> float:
    """Return the bytes that a pass over prompts keeps for its gradients."""
    own = kept or Kept()
    numbers = own.hidden * shape.hidden + own.intermediate * shape.intermediate + own.keys * shape.keys
    return prompts * work.row * shape.layers * (numbers + own.rank * work.rank + own.row * work.row)


@dataclass(frozen=True)
class Plan:
    """A way to train: ``gpus`` share an adapter's prompts, and where it is sharded the base's layers."""

    shape: Shape
    rewards: int
    gpus: int = 1
    placement: Literal["auto", "sharded"] = "auto"
    four_bits: bool = False
    at_once: int = 1
    checkpointing: bool = False
    work: Work = Work()
    machine: Machine = Machine()

    @property
    def prompts(self) -> int:
        """Prompts of a step that a GPU has."""
        return self.work.prompts // self.gpus

    @property
    def layer_bytes(self) -> float:
        """Bytes of a layer's weights."""
        return self.shape.layer * (FOUR_BITS if self.four_bits else WIDTH)

    @property
    def base(self) -> float:
        """Bytes of the base on a GPU; of a sharded one two layers are whole at a time."""
        whole, layers = self.shape.layers * self.layer_bytes, (self.shape.parameters - self.shape.body) * WIDTH
        return layers + (whole / self.gpus + 2 * self.layer_bytes if self.placement == "sharded" else whole)

    @property
    def state(self) -> float:
        """Bytes of what one training changes."""
        return STATE * self.shape.adapter(self.work.rank)

    @property
    def judges(self) -> float:
        """Bytes of the reward models."""
        return 4 * self.work.reward * self.rewards

    @property
    def activations(self) -> float:
        """Bytes kept for gradients; with checkpointing the inputs of all layers and the inside of one."""
        whole = kept_bytes(self.shape, self.work, self.at_once)
        if not self.checkpointing:
            return whole
        return whole / self.shape.layers + WIDTH * self.at_once * self.work.row * self.shape.layers * self.shape.hidden

    @property
    def cache(self) -> float:
        """Bytes of keys and values at the end of sampling."""
        tokens = self.prompts * (self.work.length + self.work.group * self.work.tokens)
        return 2.0 * WIDTH * tokens * self.shape.layers * self.shape.keys

    @property
    def logits(self) -> float:
        """Bytes of the logits that exist at the same time, in bfloat16 and twice in float32."""
        return CHUNK * self.shape.vocabulary * (WIDTH + 4 + 4)

    @property
    def peak(self) -> float:
        """The most bytes on a GPU; activations and cache do not exist at the same time."""
        return self.base + self.state + self.judges + max(self.activations, self.cache) + self.logits

    @property
    def fits(self) -> bool:
        """Tell whether a GPU holds it."""
        return self.peak <= self.machine.planned * self.machine.memory

    @cached_property
    def gather_seconds(self) -> float:
        """How long all layers take to come from the other GPUs once."""
        if self.placement == "auto":
            return 0.0
        moved = self.shape.layers * self.layer_bytes * (1 - 1 / self.gpus)
        return moved / (self.machine.link * self.machine.link_reached)

    def _pass(self, operations: float, gathers: int = 1) -> float:
        """Return the seconds of a pass whose layers arrive while others compute."""
        speed = self.machine.four_bits_speed if self.four_bits else 1.0
        return max(self.machine.seconds(operations) / speed, gathers * self.gather_seconds)

    def _decoding(self, rows: float, columns: float) -> float:
        """Return the seconds of a token of ``rows`` completions that look at ``columns`` tokens in all."""
        read = self.shape.layers * self.layer_bytes + 2 * WIDTH * columns * self.shape.layers * self.shape.keys
        reading = read / (self.machine.bandwidth * self.machine.bandwidth_reached)
        return max(self._pass(2 * (self.shape.body + self.shape.head) * rows), reading, self._launching())

    def _launching(self) -> float:
        return self.machine.layer_seconds * self.shape.layers

    def sampling_seconds(self) -> float:
        """Return what the completions of a step take."""
        work, rows = self.work, self.prompts * self.work.group
        columns = self.prompts * (work.length + work.group * work.tokens / 2)
        prompts = self._pass(2 * self.shape.body * self.prompts * work.length)
        return prompts + work.tokens * self._decoding(rows, columns)

    def step_seconds(self) -> float:
        """Return what a step takes: sampling, the start's pass, the rewards, and the passes with gradients."""
        work, passes = self.work, self.prompts / self.at_once
        thinking = self._pass(forward(self.shape, work, self.at_once))
        again = forward(self.shape, work, self.at_once) if self.checkpointing else 0.0
        learned = self._pass(learning(self.shape, work, self.at_once) + again, gathers=2)
        own = passes > 1 or self.checkpointing  # a pass of its own for the old log-probabilities
        scoring = self.machine.seconds(
            2 * work.reward * self.rewards * self.prompts * work.group * (work.length + work.tokens)
        )
        return self.sampling_seconds() + scoring + passes * ((1 + own) * thinking + work.epochs * learned)

    def training_seconds(self) -> float:
        """Return what an adapter takes."""
        return self.work.steps * self.step_seconds()

    def point_seconds(self) -> float:
        """Return what a point of a sweep takes, on the GPU that computes: completions, KL and perplexity."""
        work, shape = self.work, self.shape
        prompts = self._pass(2 * shape.body * work.held_out * work.length)
        decoded = work.tokens * self._decoding(work.held_out, work.held_out * (work.length + work.tokens / 2))
        measured = self._pass((4 * shape.body + 6 * shape.head) * work.held_out * work.tokens, gathers=2)
        scored = self.machine.seconds(2 * work.reward * self.rewards * work.held_out * (work.length + work.tokens))
        return prompts + decoded + measured + scored

    def hours(self, gpus: int, trainings: int) -> float:
        """Return the hours of trainings side by side on so many GPUs."""
        return math.ceil(trainings / (gpus // self.gpus)) * self.training_seconds() / 3600

    def sweep_hours(self, gpus: int, points: int) -> float | None:
        """Return the hours of a sweep: a point a GPU, or a point for all that share the base.

        None where the base fits in 4 bits alone: evaluations are never quantised.
        """
        if self.four_bits:
            return None
        each = self.gpus if self.placement == "sharded" else 1
        return math.ceil(points / (gpus // each)) * self.point_seconds() / 3600

    def gpu_hours(self, trainings: int, points: int) -> float:
        """Return the hours of all GPUs that trainings, and points if they fit, keep busy."""
        each = 0 if self.four_bits else self.gpus if self.placement == "sharded" else 1
        return (trainings * self.gpus * self.training_seconds() + points * each * self.point_seconds()) / 3600


def filled(plan: Plan) -> Plan | None:
    """Return the plan with as many prompts in a pass as fit, with checkpointing if it has to be; None: it cannot."""
    for checkpointing in (False, True):
        for at_once in (count for count in range(plan.prompts, 0, -1) if plan.prompts % count == 0):
            own = replace(plan, at_once=at_once, checkpointing=checkpointing)
            if own.fits:
                return own
    return None


def choose(shape: Shape, rewards: int, gpus: int) -> Plan | None:
    """Return the plan by which the experts are there first: whole bases if they fit, else sharded, else in 4 bits."""
    sizes = [size for size in GROUPS if size <= gpus]
    ways: list[list[Plan]] = [
        [Plan(shape, rewards, size) for size in sizes],
        [Plan(shape, rewards, size, "sharded") for size in sizes if size > 1],
        [Plan(shape, rewards, size, four_bits=True) for size in sizes],
    ]
    for way in ways:
        fitting = [own for plan in way if (own := filled(plan)) is not None]
        if fitting:
            return min(fitting, key=lambda plan: (plan.hours(gpus, rewards), plan.gpus))
    return None


def main() -> None:
    """Print the page, or what was counted."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if sys.argv[1:] == ["measure"]:
        from benchmarks.laws import measure

        measure()
    else:
        from benchmarks.costs_page import page

        print(page(), end="")


if __name__ == "__main__":
    main()
