"""Rows of reasoning-gym's procedural tasks: made here, from a seed, as many as asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rsoup.errors import DataError, MissingPackageError, RecipeError, did_you_mean, first_line
from rsoup.installing import pip_line

SCHEME = "gym:"
"""What a source begins with that is a task of reasoning-gym."""

TRIES = 20
"""Questions made for each row before a task counts as having no more different ones."""

SETTINGS: dict[str, Any] = {"column": "question", "reference": "answer", "unique": ("post",)}
"""Which columns a task's rows have, and that no question comes twice: held-out rows are then never trained on."""


def library(needed_for: str) -> Any:
    """Return the package reasoning_gym; MissingPackageError if it is not installed."""
    try:
        import reasoning_gym
        import reasoning_gym.factory
        import reasoning_gym.utils
    except ModuleNotFoundError as problem:
        command = pip_line("verifiable")
        raise MissingPackageError("reasoning-gym", needed_for, command) from problem
    return reasoning_gym


def gym_source(name: str, config: Mapping[str, Any], size: int) -> str:
    """Return the source of a task's rows, as ``open_rows`` reads it."""
    return f"{SCHEME}{name} {json.dumps({**config, 'size': size}, sort_keys=True)}"


def gym_rows(source: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a source: question, answer, metadata, id; questions that came before are left out.

    Row k follows from k and the configuration, whose seed is 0 unless it says so: a larger size begins with the rows
    of a smaller one.
    """
    name, _, text = source.removeprefix(SCHEME).partition(" ")
    config = json.loads(text)
    size = config.pop("size")
    tasks = library("task.gym")
    if name not in tasks.factory.DATASETS:
        raise RecipeError(f"task.gym: reasoning-gym has no task {name!r}.", did_you_mean(name, tasks.factory.DATASETS))
    try:
        made = tasks.create_dataset(name, **{"seed": 0, **config, "size": size * TRIES})
    except (TypeError, ValueError, AssertionError) as problem:
        raise RecipeError(
            f"task.gym_config: {name} cannot be made with it: {first_line(problem)}.", "Mend gym_config."
        ) from problem
    seen: set[str] = set()
    for number in range(size * TRIES):
        row = made[number]
        if row["question"] not in seen:
            seen.add(row["question"])
            yield {"id": str(number), **row}
        if len(seen) == size:
            return
    if len(seen) < size:
        raise DataError(
            f"task.gym: {name} has only {len(seen)} different questions in {size * TRIES}, not {size}.",
            f"Lower task.gym_size to {len(seen)}, or widen gym_config.",
        )
