"""The metrics of the tasks in a results file of lm-evaluation-harness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError
from rsoup.recipe import Direction

LARGEST = 1e30
"""Beyond this a number is no score: products of several would not be finite."""
LOWER = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score"}
"""Metrics of lm-eval of which lower is better, for files that do not say it."""
FACTS = {"sample_len", "sample_count", "samples", "name", "alias"}
"""What stands beside the metrics of a task."""


@dataclass(frozen=True)
class Task:
    """A task, or a group of tasks: its metrics by labels such as ``gsm8k.exact_match,strict-match``.

    ``settings`` are those that scores depend on; ``parts`` are the tasks that a group sums up.
    """

    name: str
    values: Mapping[str, float]
    errors: Mapping[str, float]
    ways: Mapping[str, Direction | None]
    settings: Mapping[str, Any]
    parts: frozenset[str] = frozenset()


def read_tasks(path: Path, content: Mapping[str, Any]) -> dict[str, Task]:
    """Return the tasks and groups of a results file that have metrics."""
    groups, subtasks = (_mapping(content, key) for key in ("groups", "group_subtasks"))
    rows = _mapping(content, "results")
    rows = {**rows, **{name: row for name, row in groups.items() if name not in rows}}
    found = {}
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise ResultsError(f"{path}: the task {name!r} has no metrics.", "Is the file whole?")
        task = _task(path, name, row, content, _descendants(name, subtasks))
        if task.values:
            found[name] = task
    if not found:
        raise ResultsError(f"{path}: holds no metric.", "Give a file that lm-eval wrote after measuring a task.")
    return found


def _task(path: Path, name: str, row: Mapping[str, Any], content: Mapping[str, Any], parts: frozenset[str]) -> Task:
    filtered = any("," in key for key in row)
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    ways: dict[str, Direction | None] = {}
    for key, value in row.items():
        metric, comma, after = key.partition(",")
        score = _number(value)
        if metric.endswith("_stderr") or key in FACTS or (filtered and not comma) or score is None:
            continue
        label = f"{name}.{key}"
        values[label] = score
        error = _number(row.get(f"{metric}_stderr{comma}{after}"))
        if error is not None and not math.isnan(error):
            if not 0 <= error <= LARGEST:
                hint = "It cannot be negative, nor without end."
                raise ResultsError(f"{path}: the standard error of {label} is {error:g}.", hint)
            errors[label] = error
        ways[label] = _way(_mapping(content, "higher_is_better").get(name), metric)
    samples = _mapping(content, "n-samples").get(name)
    settings = {
        "version": _mapping(content, "versions").get(name),
        "number of shots": _mapping(content, "n-shot").get(name),
        "number of samples": samples.get("effective") if isinstance(samples, dict) else None,
    }
    return Task(name, values, errors, ways, {k: v for k, v in settings.items() if v is not None}, parts)


def _way(told: Any, metric: str) -> Direction | None:
    """Return which way a metric is better, None if that is not known."""
    higher = told.get(metric) if isinstance(told, dict) else None
    if isinstance(higher, bool):
        return "maximize" if higher else "minimize"
    return "minimize" if metric in LOWER else None


def _descendants(name: str, subtasks: Mapping[str, Any]) -> frozenset[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        own = subtasks.get(waiting.pop())
        fresh = [part for part in own if isinstance(part, str) and part not in found] if isinstance(own, list) else []
        found.update(fresh)
        waiting += fresh
    return frozenset(found - {name})


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    """Return a number; None for words such as N/A."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    if abs(value) > LARGEST:
        return math.inf if value > 0 else -math.inf
    return float(value)
