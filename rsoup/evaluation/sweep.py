"""Evaluate a front: every planned point on every reward, with one resident model and nothing done twice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from rsoup import __version__, resolve
from rsoup.adapters import Adapter as TrainedAdapter
from rsoup.errors import AdapterError, RecipeError
from rsoup.evaluation.bench import Bench, Elsewhere, Measured
from rsoup.evaluation.documents import documents_of
from rsoup.evaluation.ingredients import Ingredient, adapters_in, kind_of, other_templates
from rsoup.evaluation.lending import borrowed
from rsoup.evaluation.measures import distinct, perplexity
from rsoup.evaluation.plan import Plan, plan_sweep
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.refining import next_point
from rsoup.evaluation.results import (
    RESULTS,
    Adapter,
    Base,
    Benchmark,
    Cost,
    Front,
    Generation,
    Point,
    Prompts,
    Results,
    Samples,
    Score,
    write_results,
)
from rsoup.evaluation.start import start_of
from rsoup.evaluation.timing import write_timing
from rsoup.evaluation.trajectory import read_trajectory
from rsoup.mixing.checkpoints import Model
from rsoup.models.load import check_placement, model_source
from rsoup.models.vllm import require_vllm
from rsoup.pareto.direction import signs_of
from rsoup.progress import Progress, say_once
from rsoup.recipe import START, EvaluationSection, Recipe
from rsoup.resolve import Resolved
from rsoup.rewards.judges.usage import counted, snapshot, used_since
from rsoup.tasks.loading import Example, Examples
from rsoup.tasks.plain import columns_of

if TYPE_CHECKING:
    from rsoup.harness.loading import Benchmark as LoadedBenchmark


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
    here, or by other processes, ``elsewhere``. The other processes of a base that is split ``lend`` meanwhile.
    """
    recipe = resolved.recipe
    settings = recipe.evaluation
    if settings.engine == "vllm":
        require_vllm()
    elif elsewhere is None:
        check_placement(recipe.model.placement)
    plan = plan_sweep(
        sources,
        settings,
        seed=recipe.seed,
        trajectory=read_trajectory(trajectory) if trajectory is not None else (),
        allow_different_starts=allow_different_starts,
        base=model_source(resolved.base.name),
    )
    if plan.base is not None and recipe.model.revision is not None:
        raise RecipeError(
            "model.revision: whole models are read at the hub's newest revision, and the base would not be.",
            "Leave it out, or give a folder that holds that revision.",
        )
    if plan.base is not None and recipe.model.placement == "sharded":
        raise RecipeError(
            "model.placement sharded: whole models are mixed in the place of the base, and parts of it cannot be.",
            "Set model.placement to auto or spread.",
        )
    for warning in (*plan.warnings, *_trained_otherwise(plan, recipe)):
        say_once(progress, f"warning: {warning}")
    _check_base(plan, resolved.base)
    benchmarks = resolved.benchmarks
    held_out = resolved.held_out_examples
    examples = prompts_of(resolved)
    for told in _about_prompts(plan, resolved, examples):
        say_once(progress, told)
    start, remark = start_of(adapters_in(plan.adapters).values()) if settings.measures else (None, None)
    if remark is not None:
        say_once(progress, remark)
    before = snapshot()
    with counted(progress.say), borrowed(resolved.base) as load:
        bench = Bench(resolved, plan, examples, start, out, progress, elsewhere, load)
        if elsewhere is None:
            bench.ask_judges_first()
        measured = _in_order(plan, _measure(recipe, plan, bench))
    if thinks := resolved.task.response == "after_think":
        _tell_unfinished({point.id: own.unfinished for point, own in measured.items()}, progress)
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
        directions={name: recipe.rewards[name].direction for name in recipe.rewards} if recipe.minimized else {},
        adapters={name: _adapter(adapter, out, plan) for name, adapter in plan.adapters.items()},
        method=plan.method,
        points=tuple(_point(point, own, thinks=thinks) for point, own in measured.items()),
        fronts={name: Front(points=ids) for name, ids in plan.fronts.items()},
        benchmarks={own.name: _benchmark(own) for own in benchmarks},
        versions={"rsoup": __version__, **{name: version(name) for name in _packages(recipe)}},
    )
    samples = Samples(
        tuple(example.id for example in examples),
        tuple(example.post for example in examples),
        {point.id: own.samples() for point, own in measured.items()},
        columns_of([example.columns for example in examples]),
        {
            own.name: documents_of({point.id: found.outcomes[own.name] for point, found in measured.items()})
            for own in benchmarks
        },
    )
    for remark in _not_applying(results):
        say_once(progress, remark)
    write_results(out / RESULTS, results, samples)
    write_timing(out, {point.id: own for point, own in measured.items()}, _seconds(plan), used_since(before))
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


def _not_applying(results: Results) -> list[str]:
    """Say which rewards do not apply to all prompts."""
    counts = {name: [point.scores[name].n for point in results.points] for name in results.rewards}
    return [
        f"{name} applies to {min(own)}{f' to {max(own)}' if max(own) > min(own) else ''} of {results.prompts.count} "
        "prompts: its means are over these."
        for name, own in counts.items()
        if min(own) < results.prompts.count
    ]


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


def _tell_unfinished(shares: Mapping[str, float], progress: Progress) -> None:
    """Say how many answers were read as empty because their thoughts had no end."""
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share)
    if told:
        progress.say(f"Answers read as empty, since their thought has no end (evaluation.max_new_tokens): {told}.")


def _next(recipe: Recipe, plan: Plan, measured: dict[PlannedPoint, Measured]) -> PlannedPoint | None:
    """Return the mix to measure next, None when there is none left."""
    found = {plan.position(point): own for point, own in measured.items()}
    places = [place for place in found if place is not None]
    scores = np.array([[found[place].mean(name) for name in recipe.rewards] for place in places])
    weights = next_point(np.array(places), scores * signs_of(recipe.rewards, recipe.minimized), recipe.seed)
    return None if weights is None else plan.point_at(weights)


def _in_order(plan: Plan, measured: dict[PlannedPoint, Measured]) -> dict[PlannedPoint, Measured]:
    """Return the points as planned, those of a line by their lambda."""
    line = [point for point in measured if point.lam is not None and plan.position(point) is not None]
    along = iter(sorted(line, key=lambda point: point.lam or 0.0))
    order = [next(along) if point in line else point for point in measured]
    return {point: measured[point] for point in order}


def _about_prompts(plan: Plan, resolved: Resolved, examples: Sequence[Example]) -> list[str]:
    """Return what is to be told of the prompts."""
    said = resolved.held_out_examples.remarks("held-out")
    if resolved.task.chat or examples[0].messages is not None:
        own = resolved.base.tokenizer.chat_template
        said += [f"warning: {warning}" for warning in other_templates(plan.adapters, own)]
    asked = resolved.recipe.evaluation.prompts
    if len(examples) < asked:
        said.append(f"There are only {len(examples)} held-out prompts of the {asked} asked for.")
    return said


def _trained_otherwise(plan: Plan, recipe: Recipe) -> list[str]:
    """Say of which adapters a training took a reward the other way than the recipe does."""
    warnings = []
    for adapter in adapters_in(plan.adapters).values():
        told = adapter.provenance.raw if adapter.provenance is not None else {}
        trained = told.get("rewards")
        for name, weight in trained.items() if isinstance(trained, dict) else ():
            lowered = name in (told.get("minimized") or [])
            if weight and name in recipe.rewards and lowered != (name in recipe.minimized):
                ways = ("lower", "raise") if lowered else ("raise", "lower")
                warnings.append(f"{adapter.name} was trained to {ways[0]} {name}; the recipe says to {ways[1]} it.")
    return warnings


def _check_base(plan: Plan, base: resolve.Base) -> None:
    for adapter in adapters_in(plan.adapters).values():
        trained_on = adapter.provenance.base_sha256 if adapter.provenance else None
        if trained_on is not None and trained_on != base.sha256:
            assert adapter.provenance is not None
            raise AdapterError(
                f"The adapter {adapter.name} was trained on {adapter.provenance.base_name}, not on {base.name}.",
                "Set model.base to the model it was trained on.",
            )


def _packages(recipe: Recipe) -> list[str]:
    """Return the packages whose versions an evaluation notes."""
    return ["torch", "transformers", *(["lm-eval"] if recipe.evaluation.benchmarks else [])]


def _benchmark(benchmark: LoadedBenchmark) -> Benchmark:
    return Benchmark(
        main=benchmark.main,
        directions=dict(benchmark.ways),
        documents=benchmark.count,
        num_fewshot=benchmark.num_fewshot,
        version=benchmark.version,
        sha256=benchmark.sha256,
    )


def _point(point: PlannedPoint, measured: Measured, *, thinks: bool) -> Point:
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
    if thinks:
        extras["unfinished_thoughts"] = measured.unfinished
    if point.kind in ("ensemble", "mod"):
        extras["passes_per_token"] = float(len(point.used))
    figures = {label: own for outcome in measured.outcomes.values() for label, own in outcome.figures.items()}
    return Point(
        id=point.id,
        kind=point.kind,
        weights=point.weights,
        lam=point.lam,
        scores=samples.summary(),
        extras=extras,
        benchmarks={label: Score(mean=own.value, stderr=own.stderr, n=own.n) for label, own in figures.items()},
    )


def _adapter(ingredient: Ingredient, out: Path, plan: Plan) -> Adapter:
    if isinstance(ingredient, Model):
        local = Path(ingredient.source).is_dir()
        path = os.path.relpath(ingredient.path, out) if local else ingredient.source
        return Adapter(path=path, sha256=ingredient.sha256, kind=kind_of(ingredient))
    checkpoint = ingredient.name in plan.early or any(
        point.kind == "checkpoint" and ingredient.name in point.weights for point in plan.points
    )
    rewards = ingredient.provenance.raw.get("rewards") if ingredient.provenance and not checkpoint else None
    assert ingredient.path is not None
    path = os.path.relpath(ingredient.path, out)  # a run may be moved as a whole
    kind = "checkpoint" if checkpoint else kind_of(ingredient)
    return Adapter(path=path, sha256=ingredient.sha256, kind=kind, rewards=rewards, cost=_cost(ingredient))


def _seconds(plan: Plan) -> dict[str, float]:
    """Return the seconds that the adapters' trainings took, of those whose rsoup.json tells."""
    told = {
        name: own.provenance.raw.get("seconds") for name, own in adapters_in(plan.adapters).items() if own.provenance
    }
    return {name: float(seconds) for name, seconds in told.items() if isinstance(seconds, (int, float))}


def _cost(adapter: TrainedAdapter) -> Cost | None:
    """Return what the training of an adapter took; None where its rsoup.json does not say."""
    told = adapter.provenance.raw if adapter.provenance is not None else {}
    figures = {name: told.get(name) for name in Cost.model_fields}
    try:
        return Cost.model_validate(figures)
    except ValidationError:
        return None
