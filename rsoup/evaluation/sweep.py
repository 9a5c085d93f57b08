"""Evaluate a front: every planned point on every reward, with one resident model and nothing done twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rsoup import __version__, adapters, resolve
from rsoup.errors import AdapterError
from rsoup.evaluation.bench import Bench, Elsewhere, Measured
from rsoup.evaluation.measures import distinct, perplexity
from rsoup.evaluation.plan import Plan, PlannedPoint, kind_of, plan_sweep
from rsoup.evaluation.refining import next_point
from rsoup.evaluation.results import (
    RESULTS,
    Adapter,
    Base,
    Generation,
    Point,
    Prompts,
    Results,
    Samples,
    write_results,
)
from rsoup.evaluation.start import start_of
from rsoup.evaluation.timing import write_timing
from rsoup.evaluation.trajectory import read_trajectory
from rsoup.evaluation.vllm import require_vllm
from rsoup.progress import Progress
from rsoup.recipe import START, EvaluationSection, Recipe
from rsoup.resolve import Resolved
from rsoup.tasks.loading import Example, Examples


def evaluate(
    resolved: Resolved,
    sources: Sequence[str | Path],
    out: Path,
    progress: Progress,
    *,
    trajectory: Path | None = None,
    allow_different_starts: bool = False,
    elsewhere: Elsewhere | None = None,
) -> Results:
    """Evaluate the base, mixes of some adapters, baselines and checkpoints; write results and samples to ``out``.

    ``out`` also keeps what was measured at each point, found again by content (adapters, weights, base model,
    prompts, generation settings; rewards for the scores), so only what is new is computed. ``results.json`` holds no
    clock reading: the same evaluation gives the same bytes. What it took is in ``timing.json``. What is new is computed
    here, or by other processes, ``elsewhere``.
    """
    recipe = resolved.recipe
    settings = recipe.evaluation
    if settings.engine == "vllm":
        require_vllm()
    plan = plan_sweep(
        sources,
        settings,
        seed=recipe.seed,
        trajectory=read_trajectory(trajectory) if trajectory is not None else (),
        allow_different_starts=allow_different_starts,
    )
    for warning in plan.warnings:
        progress.say(f"warning: {warning}")
    _check_base(plan, resolved.base)
    held_out = resolved.held_out_examples
    examples = prompts_of(resolved)
    for left in held_out.remarks("held-out"):
        progress.say(left)
    if len(examples) < settings.prompts:
        progress.say(f"There are only {len(examples)} held-out prompts of the {settings.prompts} asked for.")
    start, remark = start_of(plan.adapters.values()) if settings.measures else (None, None)
    if remark is not None:
        progress.say(remark)
    bench = Bench(resolved, plan, examples, start, out, progress, elsewhere)
    measured = _in_order(plan, _measure(recipe, plan, bench))
    results = Results(
        recipe=recipe.name,
        task=resolved.task.name,
        seed=recipe.seed,
        base_model=Base(name=resolved.base.name, sha256=resolved.base.sha256),
        generation=_generation(settings, bench.dtype, START if start is not None else "base"),
        prompts=Prompts(
            count=len(examples), sha256=bench.prompts_sha256, split="test", left_out=sum(held_out.dropped.values())
        ),
        rewards=tuple(recipe.rewards),
        adapters={name: _adapter(adapter, out, plan) for name, adapter in plan.adapters.items()},
        method=settings.method,
        points=tuple(_point(point, own) for point, own in measured.items()),
        versions={"rsoup": __version__, **{name: version(name) for name in ("torch", "transformers")}},
    )
    samples = Samples(
        tuple(example.id for example in examples),
        tuple(example.post for example in examples),
        {point.id: own.samples() for point, own in measured.items()},
    )
    write_results(out / RESULTS, results, samples)
    write_timing(out, {point.id: own for point, own in measured.items()})
    return results


def _measure(recipe: Recipe, plan: Plan, bench: Bench) -> dict[PlannedPoint, Measured]:
    """Measure the planned points, and then those that refinement chooses one by one."""
    measured = bench.measure(plan.points)
    for _ in range(recipe.evaluation.refine):
        point = _next(recipe, plan, measured)
        if point is None:
            break
        measured |= bench.measure([point])
    return measured


def _generation(settings: EvaluationSection, dtype: str, start: str) -> Generation:
    facts: dict[str, str] = {"engine": settings.engine} if settings.engine != "transformers" else {}
    if settings.measures:
        facts["kl_to"] = start
    return Generation(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        dtype=dtype,
        samples_per_prompt=settings.samples,
        **facts,
    )


def prompts_of(resolved: Resolved) -> list[Example]:
    """Return the prompts to complete."""
    return list(resolved.held_out_examples.rows[: resolved.recipe.evaluation.prompts])


def _prompts(bench: Bench, count: int, held_out: Examples) -> Prompts:
    left_out = sum(held_out.dropped.values())
    return Prompts(count=count, sha256=bench.prompts_sha256, split="test", left_out=left_out)


def _next(recipe: Recipe, plan: Plan, measured: dict[PlannedPoint, Measured]) -> PlannedPoint | None:
    """Return the mix to measure next, None when there is none left."""
    found = {plan.position(point): own for point, own in measured.items()}
    places = [place for place in found if place is not None]
    scores = [[found[place].mean(name) for name in recipe.rewards] for place in places]
    weights = next_point(np.array(places), np.array(scores), recipe.seed)
    return None if weights is None else plan.point_at(weights)


def _in_order(plan: Plan, measured: dict[PlannedPoint, Measured]) -> dict[PlannedPoint, Measured]:
    """Return the points as planned, those of a line by their lambda."""
    line = [point for point in measured if point.lam is not None and plan.position(point) is not None]
    along = iter(sorted(line, key=lambda point: point.lam or 0.0))
    order = [next(along) if point in line else point for point in measured]
    return {point: measured[point] for point in order}


def _check_base(plan: Plan, base: resolve.Base) -> None:
    for adapter in plan.adapters.values():
        trained_on = adapter.provenance.base_sha256 if adapter.provenance else None
        if trained_on is not None and trained_on != base.sha256:
            assert adapter.provenance is not None
            raise AdapterError(
                f"The adapter {adapter.name} was trained on {adapter.provenance.base_name}, not on {base.name}.",
                "Set model.base to the model it was trained on.",
            )


def _point(point: PlannedPoint, measured: Measured) -> Point:
    samples, tokens = measured.samples(), [own.tokens for own in measured.completions]
    extras = {
        "completion_tokens": float(samples.tokens.mean()),
        "ended_by_eos": float(samples.ended_by_eos.mean()),
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        **point.facts,
    }
    if "kl" in samples.measures:
        extras["kl"] = float(samples.measures["kl"].mean())
    if "surprise" in samples.measures:
        extras["base_perplexity"] = perplexity(samples.measures["surprise"].tolist(), int(samples.tokens.sum()))
    if point.kind in ("ensemble", "mod"):
        extras["passes_per_token"] = float(len(point.used))
    return Point(
        id=point.id, kind=point.kind, weights=point.weights, lam=point.lam, scores=samples.summary(), extras=extras
    )


def _adapter(adapter: adapters.Adapter, out: Path, plan: Plan) -> Adapter:
    checkpoint = any(point.kind == "checkpoint" and adapter.name in point.weights for point in plan.points)
    rewards = adapter.provenance.raw.get("rewards") if adapter.provenance and not checkpoint else None
    assert adapter.path is not None
    path = os.path.relpath(adapter.path, out)  # a run may be moved as a whole
    kind = "checkpoint" if checkpoint else kind_of(adapter)
    return Adapter(path=path, sha256=adapter.sha256, kind=kind, rewards=rewards)
