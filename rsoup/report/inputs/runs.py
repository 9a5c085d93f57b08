"""Read the results of evaluations; runs that differ in their seed are pooled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsoup.errors import ResultsError
from rsoup.evaluation.results import Results, Samples, read_results, read_samples, results_file
from rsoup.files import sha256_file
from rsoup.pareto.dominance import Floats
from rsoup.pareto.missing import complete_prompts, filled
from rsoup.report.inputs.plain import LARGEST
from rsoup.report.measured import Measured, Model, Source

APART = "Make a report of each, or evaluate them alike."


def read_runs(paths: list[Path]) -> Measured:
    """Read one or several results files into one set of measured models.

    Refuses to pool runs that differ in anything but their seed.
    """
    runs = [read_results(path) for path in paths]
    for path, run in zip(paths[1:], runs[1:], strict=True):
        _refuse_unlike(paths[0], runs[0], path, run)
    _refuse_same_seed(paths, runs)
    first = runs[0]
    texts = [read_samples(path, run) for path, run in zip(paths, runs, strict=True) if run.samples is not None]
    if 0 < len(texts) < len(runs):
        bare = next(path for path, run in zip(paths, runs, strict=True) if run.samples is None)
        raise ResultsError(f"{bare}: has no single scores, and another of these runs has.", APART)
    for path, own in zip(paths[1:], texts[1:], strict=False):
        if set(own.prompt_ids) != set(texts[0].prompt_ids):
            raise ResultsError(f"{path}: was evaluated on other prompts than {paths[0]}.", APART)
    models = tuple(_model(first, row) for row in range(len(first.points)))
    samples = _scores(first, texts) if len(texts) == len(runs) else None
    means = np.stack([_means(first, run) for run in runs])  # (seeds, points, rewards)
    counts = np.array([[_count(runs, model, name) for name in first.rewards] for model in models])
    notes: tuple[str, ...] = ()
    if samples is not None and np.isnan(samples).any():
        known = complete_prompts(samples).sum(axis=0)  # (rewards,)
        _refuse_too_few(paths[0], first.rewards, known.tolist())
        notes = _about_missing(first.rewards, known.tolist(), samples.shape[1])
        samples = filled(samples)
        means, counts = samples.mean(axis=1), np.tile(known * len(runs), (len(models), 1))
    if np.abs(means).max(initial=0.0) > LARGEST:
        raise ResultsError(f"{paths[0]}: holds a score beyond {LARGEST:g}.", "Mend the reward, and evaluate again.")
    if samples is None and len(runs) > 1:
        samples = means[:, None]
    return Measured(
        rewards=first.rewards,
        models=models,
        scores=means.mean(axis=0),
        sources=tuple(_source(path, run) for path, run in zip(paths, runs, strict=True)),
        samples=samples,
        stderr=_stderr(first),
        counts=tuple(map(tuple, counts.tolist())),
        experts=_experts(first),
        adapters={name: _located(adapter.path, paths[0]) for name, adapter in first.adapters.items()},
        method=first.method,
        texts=texts[0] if texts else None,
        notes=notes,
    )


def _count(runs: list[Results], model: Model, reward: str) -> int:
    return sum(run.point(model.id).scores[reward].n for run in runs)


def _refuse_too_few(path: Path, rewards: Sequence[str], known: Sequence[int]) -> None:
    """Refuse rewards that points cannot be compared on: they need prompts that have a score at every point."""
    for name, count in zip(rewards, known, strict=True):
        if count < 2:
            raise ResultsError(
                f"{path}: {name} has a score at every point for {count} of the prompts: there is nothing to compare.",
                "Evaluate on more prompts, or leave the reward out.",
            )


def _about_missing(rewards: Sequence[str], known: Sequence[int], prompts: int) -> tuple[str, ...]:
    return tuple(
        f"{name} counts {count} of the {prompts} prompts: the others have no score on it at some point."
        for name, count in zip(rewards, known, strict=True)
        if count < prompts
    )


def _located(adapter: str, results: Path) -> str:
    """Return an adapter's path seen from here; results note it relative to their own folder."""
    folder = results_file(results).parent
    return os.path.normpath(folder / adapter) if (folder / adapter).is_dir() else adapter


def _model(results: Results, row: int) -> Model:
    point = results.points[row]
    names = [name for name, weight in point.weights.items() if weight]
    trained = results.adapters[names[0]].rewards if point.kind == "morl" and len(names) == 1 else None
    total = sum(trained.values()) if trained else 0.0
    mu = {name: trained.get(name, 0.0) / total for name in results.rewards} if trained and total else None
    return Model(point.id, point.kind, point.weights, point.lam, mu)


def _experts(results: Results) -> dict[str, str]:
    """Return the adapter trained on each reward alone; its name is the reward's where the file does not say."""
    experts: dict[str, str] = {}
    for name, adapter in results.adapters.items():
        if adapter.kind == "expert":
            trained = [reward for reward, weight in (adapter.rewards or {name: 1.0}).items() if weight]
            if len(trained) == 1 and trained[0] in results.rewards:
                experts[trained[0]] = name
    return experts


def _means(first: Results, run: Results) -> Floats:
    """Return (points, rewards) in the order of the first run."""
    return np.array([[run.point(p.id).scores[name].mean for name in first.rewards] for p in first.points])


def _stderr(run: Results) -> Floats | None:
    rows = [[point.scores[name].stderr for name in run.rewards] for point in run.points]
    return None if any(value is None for row in rows for value in row) else np.array(rows, dtype=float)


def _scores(first: Results, texts: list[Samples]) -> Floats:
    """Return (seeds, prompts, points, rewards) with points and prompts in the order of the first run."""
    return np.stack([_own_scores(first, own, texts[0].prompt_ids) for own in texts])


def _own_scores(first: Results, own: Samples, prompt_ids: tuple[str, ...]) -> Floats:
    place = {prompt_id: row for row, prompt_id in enumerate(own.prompt_ids)}
    order = [place[prompt_id] for prompt_id in prompt_ids]
    columns = [[own.points[point.id].scores[name][order] for name in first.rewards] for point in first.points]
    return np.ascontiguousarray(np.moveaxis(np.array(columns), 2, 0))


def _source(path: Path, run: Results) -> Source:
    about = run.model_dump(mode="json", include={"recipe", "task", "seed", "seconds", "versions", "method"})
    about |= {"base model": run.base_model.name, "generation": run.generation.model_dump(mode="json")}
    about |= {"prompts": run.prompts.model_dump(mode="json")}
    about |= {"adapters": {name: adapter.sha256 for name, adapter in run.adapters.items()}}
    return Source(str(path), sha256_file(results_file(path)), about)


def _refuse_unlike(first_path: Path, first: Results, path: Path, run: Results) -> None:
    """Refuse two runs that cannot be averaged."""
    same = {
        "rewards": (sorted(first.rewards), sorted(run.rewards)),
        "prompts": (first.prompts.sha256, run.prompts.sha256),
        "task": (first.task, run.task),
        "base model": (first.base_model.name, run.base_model.name),
        "base model's weights": (first.base_model.sha256, run.base_model.sha256),
        "mixing method": (first.method, run.method),
        "generation": (first.generation.model_dump(), run.generation.model_dump()),
        "points": (sorted(point.id for point in first.points), sorted(point.id for point in run.points)),
    }
    for what, (one, other) in same.items():
        if one != other:
            raise ResultsError(f"{path}: differs from {first_path} in the {what}: {other} against {one}.", APART)
    for point in first.points:
        if run.point(point.id).weights != point.weights:
            raise ResultsError(f"{path}: point {point.id!r} has other weights than in {first_path}.", APART)


def _refuse_same_seed(paths: list[Path], runs: list[Results]) -> None:
    seen: dict[int, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        if run.seed in seen:
            raise ResultsError(
                f"{path}: has the seed {run.seed}, as {seen[run.seed]} has.",
                "Runs are pooled over seeds: give each seed once.",
            )
        seen[run.seed] = path
