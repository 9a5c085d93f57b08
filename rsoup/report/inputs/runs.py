"""Read the results of evaluations; runs that differ in their seed are pooled."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from rsoup.errors import ResultsError
from rsoup.evaluation.results import Results, read_results, read_samples, results_file
from rsoup.evaluation.timing import read_trainings
from rsoup.files import sha256_file
from rsoup.harness.metrics import LARGEST
from rsoup.pareto.missing import complete_prompts, filled, widening
from rsoup.report.inputs.figures import Figures, choose_figures, with_measures
from rsoup.report.measured import Measured, Model, Source, Spent

APART = "Make a report of each, or evaluate them alike."


def read_runs(paths: list[Path], objectives: Mapping[str, str], minimize: Collection[str] = ()) -> Measured:
    """Read one or several results files into one set of measured models, on all rewards or on ``objectives``.

    An objective may be a measure of the completions, which then stands beside all rewards unless one is named. Refuses
    to pool runs that differ in anything but their seed, or in measures that no objective asks for.
    """
    runs = [read_results(path) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        _refuse_unlike(paths[0], runs[0], path, run)
    _refuse_same_seed(paths, runs)
    texts = [read_samples(path, run) for path, run in zip(paths, runs, strict=True) if run.samples is not None]
    if 0 < len(texts) < len(runs):
        bare = next(path for path, run in zip(paths, runs, strict=True) if run.samples is None)
        raise ResultsError(f"{bare}: has no single scores, and another of these runs has.", APART)
    for path, own in zip(paths[1:], texts[1:], strict=False):
        if set(own.prompt_ids) != set(texts[0].prompt_ids):
            raise ResultsError(f"{path}: was evaluated on other prompts than {paths[0]}.", APART)
    if texts:
        runs = [with_measures(run, own) for run, own in zip(runs, texts, strict=True)]
    first = runs[0]
    figures = choose_figures(paths[0], first, objectives, minimize)
    for path, run in zip(paths, runs, strict=True):
        figures.check(path, run)
        if "kl" in figures.labels and _start(run) != _start(first):
            raise ResultsError(
                f"{path}: has the KL to {_start(run)}, {paths[0]} that to {_start(first)}.",
                "Leave kl out, or evaluate them alike.",
            )
    models = tuple(_model(runs, row, figures) for row in range(len(first.points)))
    means = np.stack([figures.means(first, run) for run in runs])  # (seeds, points, rewards)
    counts = np.array([[figures.count(runs, model.id, name) for name in figures.names] for model in models])
    samples, known = figures.samples(first, texts, means) if texts else (None, figures.names)
    notes = figures.notes
    widened = None
    if samples is not None and np.isnan(samples).any():
        there = complete_prompts(samples).sum(axis=0)  # (rewards,)
        _refuse_too_few(paths[0], figures.names, there.tolist())
        of_prompts = [figures.unit(name) == "" for name in figures.names]
        notes = (*notes, *_about_missing(figures.names, there.tolist(), first.prompts.count, of_prompts))
        widened = widening(samples)
        samples = filled(samples)
        means = samples.mean(axis=1)
        counts = np.where(of_prompts, there * len(runs), counts)
    if np.abs(means).max(initial=0.0) > LARGEST:
        raise ResultsError(f"{paths[0]}: holds a score beyond {LARGEST:g}.", "Mend the reward, and evaluate again.")
    if samples is None and len(runs) > 1:
        samples = means[:, None]
    return Measured(
        rewards=figures.names,
        models=models,
        scores=means.mean(axis=0),
        sources=tuple(_source(path, run) for path, run in zip(paths, runs, strict=True)),
        samples=samples,
        stderr=figures.stderr(first),
        counts=tuple(map(tuple, counts.tolist())),
        experts=_experts(first, figures),
        adapters={name: _located(adapter.path, paths[0]) for name, adapter in first.adapters.items()},
        method=first.method,
        texts=figures.texts(texts[0]) if texts else None,
        notes=notes,
        minimized=figures.minimized,
        fronts={name: front.points for name, front in first.fronts.items()},
        spent=_spent(runs, [read_trainings(results_file(path).parent) for path in paths]),
        bare=frozenset(figures.names) - frozenset(known),
        widened=widened,
        prompts=first.prompts.count if texts else None,
        documents={unit: first.benchmarks[unit].documents for name in known if (unit := figures.unit(name))},
    )


def _refuse_too_few(path: Path, rewards: Sequence[str], known: Sequence[int]) -> None:
    """Refuse rewards that points cannot be compared on: they need prompts that have a score at every point."""
    for name, count in zip(rewards, known, strict=True):
        if count < 2:
            raise ResultsError(
                f"{path}: {name} has a score at every point for {count} of the prompts: there is nothing to compare.",
                "Evaluate on more prompts, or leave the reward out.",
            )


def _about_missing(
    rewards: Sequence[str], known: Sequence[int], prompts: int, of_prompts: Sequence[bool]
) -> tuple[str, ...]:
    return tuple(
        f"{name} counts {count} of the {prompts} prompts: the others have no score on it at some point."
        for name, count, own in zip(rewards, known, of_prompts, strict=True)
        if own and count < prompts
    )


def _located(adapter: str, results: Path) -> str:
    """Return an adapter's path seen from here; results note it relative to their own folder."""
    folder = results_file(results).parent
    return os.path.normpath(folder / adapter) if os.path.isdir(folder / adapter) else adapter  # noqa: PTH112 - of any text


def _model(runs: Sequence[Results], row: int, figures: Figures) -> Model:
    results = runs[0]
    point = results.points[row]
    names = [name for name, weight in point.weights.items() if weight]
    trained = results.adapters[names[0]].rewards if point.kind == "morl" and len(names) == 1 else None
    used = {reward: weight for reward, weight in (trained or {}).items() if weight}
    mu = None
    if used and set(used) <= set(figures.trained):
        mu = dict.fromkeys(figures.names, 0.0)
        mu |= {figures.trained[reward]: weight / sum(used.values()) for reward, weight in used.items()}
    return Model(point.id, point.kind, point.weights, point.lam, mu, _measures(runs, point.id, figures))


def _measures(runs: Sequence[Results], point: str, figures: Figures) -> dict[str, float]:
    """Return the means over runs of the measures that no objective is."""
    own = [run.point(point).extras for run in runs]
    objectives = {terms[0][1] for terms in figures.terms.values() if len(terms) == 1}
    known = [name for name in own[0] if name not in objectives and name not in figures.names]
    return {name: float(np.mean([each[name] for each in own])) for name in known if all(name in each for each in own)}


def _experts(results: Results, figures: Figures) -> dict[str, str]:
    """Return the adapter trained on each reward alone; its name is the reward's where the file does not say."""
    experts: dict[str, str] = {}
    for name, adapter in results.adapters.items():
        if adapter.kind == "expert":
            used = [reward for reward, weight in (adapter.rewards or {name: 1.0}).items() if weight]
            if len(used) == 1 and used[0] in figures.trained:
                experts[figures.trained[used[0]]] = name
    return experts


def _spent(runs: Sequence[Results], seconds: Sequence[Mapping[str, float]]) -> dict[str, Spent]:
    """Return what each training took, on average over the runs, of those that all runs tell it of."""
    found = {}
    for name in runs[0].adapters:
        costs = [run.adapters[name].cost if name in run.adapters else None for run in runs]
        known = [cost for cost in costs if cost is not None]
        if len(known) == len(runs):
            times = [own[name] for own in seconds if name in own]
            found[name] = Spent(
                optimizer_steps=fmean(cost.optimizer_steps for cost in known),
                tokens=fmean(cost.tokens for cost in known),
                seconds=fmean(times) if len(times) == len(runs) else None,
            )
    return found


def _source(path: Path, run: Results) -> Source:
    about = run.model_dump(mode="json", include={"recipe", "task", "seed", "seconds", "versions", "method"})
    about |= {"base model": run.base_model.name, "generation": run.generation.model_dump(mode="json")}
    about |= {"prompts": run.prompts.model_dump(mode="json")}
    about |= {"adapters": {name: adapter.sha256 for name, adapter in run.adapters.items()}}
    return Source(str(path), sha256_file(results_file(path)), about)


def _start(run: Results) -> str:
    """Return what the KL divergence of completions was measured to."""
    return str(run.generation.model_dump().get("kl_to"))


def _refuse_unlike(first_path: Path, first: Results, path: Path, run: Results) -> None:
    """Refuse two runs that cannot be averaged, whatever was measured beside rewards."""
    one, other = (own.generation.model_dump(exclude={"kl_to"}) for own in (first, run))
    same = {
        "rewards": (sorted(first.rewards), sorted(run.rewards)),
        "rewards of which lower scores are better": (sorted(first.minimized), sorted(run.minimized)),
        "prompts": (first.prompts.sha256, run.prompts.sha256),
        "task": (first.task, run.task),
        "base model": (first.base_model.name, run.base_model.name),
        "base model's weights": (first.base_model.sha256, run.base_model.sha256),
        "mixing method": (first.method, run.method),
        "generation": (one, other),
        "points": (sorted(point.id for point in first.points), sorted(point.id for point in run.points)),
        "benchmarks": tuple({name: own.sha256 for name, own in found.benchmarks.items()} for found in (first, run)),
        "fronts": tuple({name: sorted(own.points) for name, own in found.fronts.items()} for found in (first, run)),
    }
    for what, (ours, theirs) in same.items():
        if ours != theirs:
            raise ResultsError(f"{path}: differs from {first_path} in the {what}: {theirs} against {ours}.", APART)
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
