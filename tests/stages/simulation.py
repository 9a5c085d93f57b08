"""Stages that only take time: how long a schedule of them is, and how short one could be."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from rsoup.recipe_file import parse_recipe
from rsoup.stages.graph import Needs, Stage, fitting, ready, stages_of_runs

Seconds = Callable[[Stage], float]


def four_rewards() -> list[Stage]:
    """Return the stages of a run with 4 experts, 15 baselines and 165 mixes."""
    names = [f"r{number}" for number in range(4)]
    pairs = [{one: 1.0, other: 1.0} for row, one in enumerate(names) for other in names[row + 1 :]]
    more = [{one: 2.0, other: 1.0} for one in names for other in names if one != other][:9]
    content = {
        "model": {"base": "any"},
        "task": {"data": "any.jsonl"},
        "rewards": {name: {"function": f"own.py:{name}"} for name in names},
        "morl": [*pairs, *more],
        "evaluation": {"lambdas": 9},
    }
    stages = stages_of_runs([parse_recipe(content, "test")])
    counts = [sum(stage.kind == kind for stage in stages) for kind in ("training", "point")]
    assert counts == [4 + 15, 165 + 15 + 1]
    return stages


def length(stages: Sequence[Stage], machines: Needs, seconds: Seconds) -> float:
    """Return how long the stages take when each begins as soon as the order of the stages and what is free allow."""
    now, free = 0.0, machines
    done: set[str] = set()
    begun: dict[str, Stage] = {}
    ends: list[tuple[float, str]] = []
    while len(done) < len(stages):
        for stage in fitting(ready(stages, done, set(begun)), free, machines):
            begun[stage.name] = stage
            free = free.beside(stage.needs.on(machines))
            heapq.heappush(ends, (now + seconds(stage), stage.name))
        now, name = heapq.heappop(ends)
        done.add(name)
        free += begun.pop(name).needs.on(machines)
    return now


def bound(stages: Sequence[Stage], machines: Needs, seconds: Seconds) -> float:
    """Return what no schedule is shorter than: the longest path, and all work over all GPUs (or cores)."""
    longest: dict[str, float] = {}
    for stage in stages:
        longest[stage.name] = seconds(stage) + max((longest[name] for name in stage.waits_for), default=0.0)
    kinds = "gpus" if machines.gpus else "cpus"
    work = sum(seconds(stage) * getattr(stage.needs.on(machines), kinds) for stage in stages)
    return max(*longest.values(), work / getattr(machines, kinds))
