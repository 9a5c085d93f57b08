"""Open what is to be served: a run's folder, a recipe, or a base and adapters alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsoup.adapters import Adapter
from rsoup.errors import AdapterError, RsoupError
from rsoup.evaluation.ingredients import BASE, adapters_in, kind_of, models_in, read_ingredients
from rsoup.evaluation.results import Results, read_results, results_file
from rsoup.mixing.compatibility import made_alike
from rsoup.models.load import context_length, even_length, load_language_model, model_sha256, pick_device
from rsoup.models.rowwise import Method
from rsoup.recipe import EvaluationSection, Recipe, RewardSection
from rsoup.report.choices import choose
from rsoup.report.evidence import Evidence, gather
from rsoup.report.fronts import report_points
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options
from rsoup.report.schema import ReportPoint
from rsoup.serving.errors import RequestError
from rsoup.serving.served import Served
from rsoup.serving.source import Source, base_of, recipe_of
from rsoup.stages.trained import adapters_of

SERVED = ("base", "expert", "soup", "morl")
"""Kinds of points that are one model."""
DRAWS = 100
"""Of the bootstrap behind the report's points, whose intervals are not shown."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is served: the recipe if there is one, the adapters and how they mix, and what was measured of their mixes.

    Without ``evidence``, ``unmeasured`` says why.
    """

    name: str
    base: str
    revision: str | None
    method: Method
    adapters: Mapping[str, Adapter]
    recipe: Recipe | None
    evidence: Evidence | None
    unmeasured: str
    warnings: Sequence[str] = field(default_factory=tuple)

    @property
    def rewards(self) -> dict[str, RewardSection]:
        """The rewards of the run by name."""
        return dict(self.recipe.rewards) if self.recipe is not None else {}

    def prefer(self, mu: Mapping[str, float]) -> dict[str, float]:
        """Return the weights of the soup that the report chooses by validation, the base's share among them."""
        if self.evidence is None or self.recipe is None:
            raise RequestError(
                f"prefer chooses among what was measured, and nothing is: {self.unmeasured}.",
                "Give the weights of a soup instead.",
                param="model",
                code="no_report",
            )
        try:
            choices = choose(self.evidence, Options(prefer=(mu,), seed=self.recipe.seed))
        except RsoupError as problem:
            raise RequestError(problem.message, problem.hint, param="model", code="no_report") from problem
        return self.with_base(next(choice for choice in choices if choice.rule == "validation").weights)

    def with_base(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the weights of a measured soup, the base's share among them: what the adapters leave."""
        rest = 1 - math.fsum(weights.values())
        return {**weights, **({BASE: rest} if abs(rest) > 1e-6 else {})}

    def experts(self) -> list[tuple[str, str, Any]]:
        """Return the name of each adapter, its kind, and the rewards it was trained on, if it says so."""
        facts = [(own.name, kind_of(own), own.provenance) for own in self.adapters.values()]
        return [(name, kind, told.raw.get("rewards") if told else None) for name, kind, told in facts]

    def points(self) -> list[ReportPoint]:
        """Return the measured models that can be served: the base, adapters, and their mixes."""
        points = report_points(self.evidence) if self.evidence is not None else []
        return [point for point in points if point.kind in SERVED]


@dataclass(frozen=True, kw_only=True)
class Opened(Run):
    """A run with its model in memory."""

    served: Served


def open_run(source: Source) -> Opened:
    """Read the run and load its model; RsoupError if they do not fit together."""
    run = read_run(source)
    model = load_language_model(run.base, revision=run.revision, dtype=_dtype(source, run.recipe), exact=True)
    context, told = _context(context_length(run.base, run.revision), even_length(model.model.config))
    served = Served(model, run.adapters, run.method, context)
    served.probe()
    return Opened(**{**vars(run), "warnings": (*run.warnings, *told)}, served=served)


def _context(reads: int | None, even: int | None) -> tuple[int | None, list[str]]:
    """Return how many tokens a request may have, of those that the model reads, and what to say of it."""
    if even is None or (reads is not None and reads <= even):
        return reads, []
    told = f"beyond {even} tokens a request would change the positions of all beside it (longrope)"
    return even, [f"{told}: requests may have {even} tokens."]


def read_run(source: Source) -> Run:
    """Read what is to be served, but for the model; RsoupError if it does not fit together."""
    recipe = None if source.run is None else recipe_of(source.run)
    base = base_of(source, recipe)
    settings = recipe.evaluation if recipe is not None else EvaluationSection()
    sources: Sequence[str | Path] = source.adapters or (adapters_of(recipe) if recipe is not None else ())
    method = source.method or _method(settings)
    different = source.allow_different_starts
    adapters = _adapters(sources)
    _, warnings = made_alike(list(adapters.values()), method, allow_different_starts=different)
    revision = recipe.model.revision if recipe is not None and source.model is None else None
    _check_base(adapters, base, model_sha256(base, revision))
    results, reason = _results(recipe, adapters, method)
    evidence = None
    if results is not None and recipe is not None:
        evidence = gather(read_inputs([recipe.folder / "eval"], {}, {}).as_gains(), DRAWS, recipe.seed)
    name = recipe.name if recipe is not None else Path(base).name
    return Run(
        name=name,
        base=base,
        revision=revision,
        method=method,
        adapters=adapters,
        recipe=recipe,
        evidence=evidence,
        unmeasured=reason,
        warnings=warnings,
    )


def _method(settings: EvaluationSection) -> Method:
    """Return how a run was evaluated, where rows of a batch can be mixed so."""
    return "cat" if settings.method == "cat" else "factors"


def _adapters(sources: Sequence[str | Path]) -> dict[str, Adapter]:
    ingredients = read_ingredients(sources)
    if models := models_in(ingredients):
        raise AdapterError(
            f"{next(iter(models))} is a whole model, and what is mixed for each request are adapters.",
            "Make an adapter of it: rsoup mix --extract MODEL --base BASE.",
        )
    return adapters_in(ingredients)


def _dtype(source: Source, recipe: Recipe | None) -> str:
    """Return the type of the weights: float32 on the CPU and that of training elsewhere, unless it is said."""
    if source.dtype is not None:
        return source.dtype
    if recipe is None:
        return "auto"
    dtype: str = recipe.evaluation.dtype
    return recipe.model.dtype if dtype == "auto" and pick_device().type != "cpu" else dtype


def _check_base(adapters: Mapping[str, Adapter], base: str, sha256: str) -> None:
    for adapter in adapters.values():
        trained_on = adapter.provenance.base_sha256 if adapter.provenance else None
        if trained_on is not None and trained_on != sha256:
            assert adapter.provenance is not None
            raise AdapterError(
                f"The adapter {adapter.name} was trained on {adapter.provenance.base_name}, not on {base}.",
                "Give the model it was trained on with --model.",
            )


def _results(recipe: Recipe | None, adapters: Mapping[str, Adapter], method: Method) -> tuple[Results | None, str]:
    """Return what was measured of these very adapters, mixed in this very way; or None, and why."""
    if recipe is None:
        return None, "no run was given, and so no report"
    path = results_file(recipe.folder / "eval")
    if not path.is_file():
        return None, "the run has not been evaluated (rsoup eval)"
    try:
        results = read_results(path)
    except RsoupError as problem:
        return None, f"its results cannot be read: {problem.message.rstrip('.')}"
    for name, own in results.adapters.items():
        if own.kind != "checkpoint" and (name not in adapters or adapters[name].sha256 != own.sha256):
            return None, f"the run was evaluated with another adapter {name} than is served"
    if results.method not in (None, method):
        return None, f"the run was evaluated with the method {results.method}, and {method} is served"
    return results, ""
