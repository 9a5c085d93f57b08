"""Read results of lm-evaluation-harness: a model each, with the metrics of its tasks and their standard errors.

lm-eval writes ``results_DATE.json`` into a folder of the model's name; ``"acc,none"`` there is the metric acc after the
filter none, ``"acc_stderr,none"`` its standard error or "N/A".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsoup.errors import ResultsError, did_you_mean
from rsoup.evaluation.results import results_file
from rsoup.files import sha256_file
from rsoup.harness.metrics import Task, read_tasks
from rsoup.recipe import Direction
from rsoup.report.inputs.origins import Origin, origins_of, told_origins
from rsoup.report.inputs.plain import PlainPoint, is_number, labels_of, lowered, measured_from
from rsoup.report.measured import Measured, Source

GIVE = "Give results_*.json of lm-eval, or the folder that it wrote into (--output_path)."


@dataclass(frozen=True)
class Evaluation:
    """One model: the files that measure it, the tasks they hold, and what lm-eval was told to load."""

    paths: tuple[Path, ...]
    name: str
    tasks: Mapping[str, Task]
    arguments: Mapping[str, str]


def is_lm_eval(path: Path) -> bool:
    """Tell whether a file, or a folder, holds results of lm-eval."""
    if path.is_dir():
        return not results_file(path).is_file() and any(_is_results(_content(file)) for file in _files(path))
    return _is_results(_content(path))


def read_lm_eval(
    paths: list[Path], hints: Path | None, objectives: Mapping[str, str], minimize: Collection[str]
) -> Measured:
    """Read models measured by lm-eval; a CSV of ``hints`` may say what they are: id, kind, lambda or weights, mu."""
    models, notes = _united(file for path in paths for file in (_files(path) if path.is_dir() else [path]))
    tasks = _shared(models)
    if not objectives:
        objectives, told = _main_metrics(models, tasks)
        notes += told
    labels = _labels(models[0], objectives)
    for model in models:
        _refuse_unlike(models[0], model, labels)
    ways = {alias: way for alias, label in labels.items() if (way := _way(models, label)) is not None}
    minimized = lowered(objectives, labels, ways, minimize)
    said = {
        name for name, expression in objectives.items() if not ways.keys().isdisjoint(labels_of(expression, labels))
    }
    unsaid = [name for name in objectives if name not in said | minimized]
    if unsaid:
        assumed = f"The files do not say which way these are better, so higher counts: {', '.join(unsaid)}"
        notes += (f"{assumed}; --minimize NAME says that lower is.",)
    ids = _ids(models)
    origins = origins_of({own: model.arguments for own, model in zip(ids, models, strict=True)})
    if hints is not None:
        origins |= told_origins(hints, ids, tuple(objectives))
    points = [
        _point(model, labels, own, origins.get(own, Origin("model"))) for own, model in zip(ids, models, strict=True)
    ]
    sources = tuple(_source(path) for model in models for path in model.paths)
    measured = measured_from(points, objectives, sources, notes, minimized)
    adapters = {name: folder for origin in origins.values() for name, folder in origin.adapters.items()}
    return replace(measured, adapters=adapters)


def _files(folder: Path) -> list[Path]:
    """Return the results in a folder, in the folders of models in it, or the other JSON files there that are some."""
    found = sorted(
        {*folder.glob("results_*.json"), *folder.glob("*/results_*.json"), *folder.glob("*/*/results_*.json")}
    )
    found = [path for path in found if (content := _content(path)) is None or _is_results(content)]
    return found or [path for path in sorted(folder.glob("*.json")) if _is_results(_content(path))]


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_results(content: Any) -> bool:
    return isinstance(content, dict) and "schema" not in content and isinstance(content.get("results"), dict)


def _united(files: Iterable[Path]) -> tuple[list[Evaluation], tuple[str, ...]]:
    """Return a model for each file, but one for those that lm-eval wrote into one folder of a model.

    There a task that was measured twice counts as in the later file, which is noted.
    """
    found: dict[tuple[Path, str], Evaluation] = {}
    notes: list[str] = []
    for path in dict.fromkeys(files):
        content = _content(path)
        if not _is_results(content):
            raise ResultsError(f"{path}: is no results file of lm-eval.", GIVE)
        arguments = _arguments(content)
        dated = path.name.startswith("results_")
        name = str(content.get("model_name") or (path.parent.name if dated else path.stem))
        own = Evaluation((path,), name, read_tasks(path, content), arguments)
        key = (path.parent if dated else path, name)
        before = found.get(key)
        if before is not None:
            early, late = sorted((before, own), key=lambda one: one.paths[-1].name)
            twice = [task for task in late.tasks if task in early.tasks]
            notes += [f"{task} of {name} is that of {late.paths[-1].name}, the later file." for task in twice]
            own = replace(late, paths=early.paths + late.paths, tasks={**early.tasks, **late.tasks})
        found[key] = own
    return list(found.values()), tuple(notes)


def _arguments(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what lm-eval was told of the model, such as pretrained and peft."""
    config = content.get("config")
    given = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(given, str):
        given = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
    return {str(key): str(value) for key, value in given.items()} if isinstance(given, dict) else {}


def _shared(models: list[Evaluation]) -> list[str]:
    """Return the tasks that every model has, in the order of the first."""
    return [task for task in models[0].tasks if all(task in model.tasks for model in models)]


def _main_metrics(models: list[Evaluation], shared: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the first metric of every task that is no part of another, and what is to tell of the choice."""
    parts = {part for name in shared for part in models[0].tasks[name].parts}
    chosen = [models[0].tasks[name] for name in shared if name not in parts]
    if not chosen:
        raise ResultsError(f"{models[0].paths[0]}: shares no task with all other models.", "Measure the same tasks.")
    notes = []
    for task in chosen:
        first, *others = task.values
        if others:
            notes.append(
                f"{task.name} counts by {_short(first, task)}, not by {', '.join(_short(o, task) for o in others)}"
            )
    odd = sorted({name for model in models for name in model.tasks} - set(shared) - parts)
    told: tuple[str, ...] = (f"{'; '.join(notes)}: --objective NAME=TASK.METRIC chooses.",) if notes else ()
    if odd:
        told += (f"Left out, as not every model has them: {', '.join(odd)}.",)
    return {task.name: next(iter(task.values)) for task in chosen}, told


def _short(label: str, task: Task) -> str:
    return label.removeprefix(f"{task.name}.")


def _labels(model: Evaluation, objectives: Mapping[str, str]) -> dict[str, str]:
    """Return alias -> label of all metrics of a model; refuse objectives that speak of none, or of several."""
    whole = {label: label for task in model.tasks.values() for label in task.values}
    shorter: dict[str, list[str]] = {}
    for task in model.tasks.values():
        for label in task.values:
            for alias in dict.fromkeys([task.name, label.rpartition(",")[0] or label]):
                shorter.setdefault(alias, []).append(label)
    labels = {alias: own[0] for alias, own in shorter.items() if len(own) == 1} | whole
    for name, expression in objectives.items():
        if labels_of(expression, labels):
            continue
        several = shorter.get(expression.removeprefix("-"))
        if several:
            raise ResultsError(
                f"--objective {name}={expression}: this may be {', '.join(several)}.", "Write one of them in full."
            )
        raise ResultsError(f"{model.paths[0]}: has no metric {expression!r}.", did_you_mean(expression, whole))
    used = {labels[alias] for expression in objectives.values() for alias in labels_of(expression, labels)}
    return {alias: label for alias, label in labels.items() if label in used}


def _refuse_unlike(first: Evaluation, model: Evaluation, labels: Mapping[str, str]) -> None:
    """Refuse a model that lacks a metric, or was measured otherwise than the first."""
    for label in dict.fromkeys(labels.values()):
        ours = next(task for task in first.tasks.values() if label in task.values)
        theirs = model.tasks.get(ours.name)
        path = model.paths[-1]
        if theirs is None or label not in theirs.values:
            raise ResultsError(
                f"{path}: has no {label}, which {first.paths[0]} has.", "Measure the same for all models."
            )
        if not is_number(str(theirs.values[label])):
            raise ResultsError(f"{path}: {label} is {theirs.values[label]}, no score.", "Measure it again.")
        for what, value in theirs.settings.items():
            if what in ours.settings and ours.settings[what] != value:
                raise ResultsError(
                    f"{path}: the {what} of {ours.name} is {value}, that of {first.paths[0]} is {ours.settings[what]}.",
                    "Compare models that were measured alike.",
                )


def _way(models: list[Evaluation], label: str) -> Direction | None:
    """Return which way a metric is better, None if no model's file says it; refuse files that contradict each other."""
    said = {task.ways[label]: model for model in models for task in model.tasks.values() if task.ways.get(label)}
    if len(said) > 1:
        one, other = (model.paths[0] for model in said.values())
        raise ResultsError(
            f"{one} and {other} do not agree which way {label} is better.", "Mend higher_is_better in one of them."
        )
    return next(iter(said), None)


def _ids(models: list[Evaluation]) -> list[str]:
    """Return what models are called: by the end of their name or folder, or the shortest that tells them apart."""
    ways = (
        [model.name.rstrip("/").rpartition("/")[2] for model in models],
        [model.name for model in models],
        [model.paths[0].parent.name for model in models],
        [model.paths[0].stem for model in models],
    )
    unique = (names for names in ways if len(set(names)) == len(names) and all(names))
    return next(unique, [str(model.paths[0]) for model in models])


def _point(model: Evaluation, labels: Mapping[str, str], own: str, origin: Origin) -> PlainPoint:
    values = {label: value for task in model.tasks.values() for label, value in task.values.items()}
    errors = {label: error for task in model.tasks.values() for label, error in task.errors.items()}
    return PlainPoint(
        where=str(model.paths[0]),
        kind=origin.kind,
        values={alias: values[label] for alias, label in labels.items()},
        stderr={alias: errors[label] for alias, label in labels.items() if label in errors},
        id=own,
        lam=origin.lam,
        weights=origin.weights,
        mu=origin.mu,
    )


def _source(path: Path) -> Source:
    content = _content(path)
    told = {"model": "model_name", "lm-eval": "lm_eval_version", "date": "date"}
    about = {word: content[key] for word, key in told.items() if content.get(key) is not None}
    return Source(str(path), sha256_file(path), about)
