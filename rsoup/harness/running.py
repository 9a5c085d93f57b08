"""Measure a benchmark: lm-eval asks a model, filters and scores its answers, and aggregates the scores."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.api.metrics import mean
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.utils import set_torch_seed

from rsoup.harness.metrics import Task, read_tasks
from rsoup.harness.outcome import Document, Figure, Outcome
from rsoup.harness.parts import parts_of
from rsoup.harness.resampling import in_this_process
from rsoup.recipe import LmEvalSection

if TYPE_CHECKING:
    from rsoup.harness.loading import Benchmark

SEED, OTHER_SEED = 0, 1234
"""lm-eval's own: of Python's random numbers, and of all others."""
DRAWS = 100_000
"""lm-eval's own number of resamples for the standard errors of what is no mean."""


def measure(benchmark: Benchmark, model: LM, settings: LmEvalSection) -> Outcome:
    """Return what a benchmark says of a model: the numbers of lm-eval's own command, if asked for this one alone."""
    tasks, groups = benchmark.tasks, benchmark.groups
    content = answered(tasks, groups, model, settings, limit=settings.limit, draws=DRAWS)
    read = read_tasks(Path(benchmark.name), content)
    counts = {label: n for name in tasks if name in read for label, n in _counts(read[name], content).items()}
    figures = {label: _figure(own, label, benchmark, counts) for own in read.values() for label in own.values}
    parts = {label: own for name, task in tasks.items() for label, own in _parts(task, content, read.get(name)).items()}
    for name, group in groups.items():
        if name in read:
            parts |= _parts_of_group(group, read[name], parts, benchmark.documents)
    return Outcome(figures, tuple(_documents(tasks, content, parts)))


def answered(
    tasks: Mapping[str, Any],
    groups: Mapping[str, Any],
    model: LM,
    settings: LmEvalSection,
    *,
    limit: float | None,
    draws: int,
) -> dict[str, Any]:
    """Return lm-eval's results, with its random numbers as its own command sets them."""
    for task in tasks.values():
        task.set_fewshot_seed(seed=OTHER_SEED)
    with _seeded(), in_this_process():
        found: dict[str, Any] = evaluate(
            lm=model,
            task_dict={"tasks": dict(tasks), "groups": dict(groups), "group_map": {}},
            limit=limit,
            bootstrap_iters=draws,
            log_samples=True,
            system_instruction=settings.system_instruction,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=settings.apply_chat_template,
            confirm_run_unsafe_code=settings.confirm_run_unsafe_code,
        )
    return found


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed all random numbers within the block; those after it go on as if nothing had been drawn."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(SEED)
            np.random.seed(OTHER_SEED)
            set_torch_seed(OTHER_SEED)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _figure(task: Task, label: str, benchmark: Benchmark, counts: Mapping[str, int]) -> Figure:
    key = label.removeprefix(f"{task.name}.")
    parts = [f"{name}.{key}" for name in benchmark.tasks if name in task.parts]
    count = counts[label] if label in counts else sum(counts.get(part, 0) for part in parts)
    return Figure(float(task.values[label]), task.errors.get(label), count)


def _counts(task: Task, content: Mapping[str, Any]) -> dict[str, int]:
    """Return how many documents stand behind each metric of a task."""
    found = {}
    for label in task.values:
        metric, after = _split(task.name, label)
        found[label] = sum(row["filter"] == after and metric in row for row in _samples(content, task.name))
    return found


def _split(task: str, label: str) -> tuple[str, str]:
    """Return the metric and the filter of a label."""
    metric, _, after = label.removeprefix(f"{task}.").partition(",")
    return metric, after


def _samples(content: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = content["samples"][task]
    return samples


def _parts(task: Any, content: Mapping[str, Any], read: Task | None) -> dict[str, dict[str, float]]:
    """Return the parts of a task's documents in its metrics: label -> document -> part, as far as they can be told."""
    found: dict[str, dict[str, float]] = {}
    for label, value in read.values.items() if read is not None else ():
        metric, after = _split(task.task_name, label)
        own = [row for row in _samples(content, task.task_name) if row["filter"] == after and metric in row]
        parts = parts_of([row[metric] for row in own], value, task.aggregation().get(metric, mean))
        if parts is not None:
            found[label] = {_id(task.task_name, row): part for row, part in zip(own, parts.tolist(), strict=True)}
    return found


def _parts_of_group(
    group: Any, read: Task, parts: Mapping[str, Mapping[str, float]], documents: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Return the parts of all documents in the metrics of a group: its tasks are what they are, none is drawn."""
    weighted = {own.metric: own.weight_by_size for own in group.aggregate_metric_list or ()}
    names = [task.task_name for task in group.get_all_tasks()]
    found: dict[str, dict[str, float]] = {}
    for label, value in read.values.items():
        key = label.removeprefix(f"{group.name}.")
        lacking = any(f"{name}.{key}" not in parts for name in names)
        if lacking:
            continue
        own = {name: parts[f"{name}.{key}"] for name in names}
        total = sum(documents[name] for name in names)
        rows: dict[str, float] = {}
        for name, scores in own.items():
            share = documents[name] / total if weighted.get(key.partition(",")[0], True) else 1 / len(names)
            middle = float(np.mean(list(scores.values())))
            rows |= {row: value + share * total / len(scores) * (part - middle) for row, part in scores.items()}
        found[label] = rows
    return found


def _documents(
    tasks: Mapping[str, Any], content: Mapping[str, Any], parts: Mapping[str, Mapping[str, float]]
) -> Iterable[Document]:
    for name, task in tasks.items():
        rows = {_id(name, row): row for row in reversed(_samples(content, name))}  # of each document the first filter's
        for key, row in reversed(rows.items()):
            own = {label: values[key] for label, values in parts.items() if key in values}
            yield Document(key, *_texts(task, row), own)


def _id(task: str, row: Mapping[str, Any]) -> str:
    return f"{task}/{row['doc_id']}"


def _texts(task: Any, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return a document's question and what was answered: a text, or the choice that was found likeliest."""
    arguments, answers = row["arguments"], [own[0] for own in row["resps"]]
    question = task.doc_to_text(row["doc"])
    if isinstance(answers[0], str):
        return str(question), answers[0]
    if len(arguments[0]) == 1:  # a text whose likelihood is asked
        return str(arguments[0][0]), ""
    best = int(np.argmax([likelihood for likelihood, _ in answers[: len(arguments)]]))
    if not isinstance(question, str):  # the choices stand in the question
        return str(arguments[0][0]), str(arguments[best][0])
    return question, str(arguments[best][1]).strip() if len(answers) > 1 or answers[0][1] else ""
