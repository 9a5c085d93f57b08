"""Measures points, now or earlier: what is kept is not done again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsoup.adapters import Adapter
from rsoup.evaluation.cache import SCHEMA, Completion, Kept, kept
from rsoup.evaluation.generation import Resident
from rsoup.evaluation.ingredients import adapters_in
from rsoup.evaluation.plan import Plan, PlannedPoint
from rsoup.evaluation.records import Floats
from rsoup.evaluation.samples import MEASURES, PointSamples
from rsoup.evaluation.scoring import score_or_recall
from rsoup.evaluation.vllm import Vllm
from rsoup.files import sha256_json
from rsoup.mixing.checkpoints import Mixture
from rsoup.models.load import pick_device, pick_dtype
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.resolve import Resolved
from rsoup.rewards.samples import sample_of
from rsoup.tasks.loading import Example


@dataclass(frozen=True)
class Measured:
    """The completions of a point, ``per_prompt`` for each prompt in the order of the prompts, and their scores."""

    completions: tuple[Completion, ...]
    scores: Mapping[str, Floats]  # reward name -> (completions,)
    per_prompt: int
    seconds: float

    def mean(self, reward: str) -> float:
        """Return the mean score on a reward, over the completions that it applies to."""
        return float(np.nanmean(self.scores[reward]))

    @property
    def unfinished(self) -> float:
        """The share of completions that are read as empty because their thought has no end."""
        return sum(own.unfinished for own in self.completions) / len(self.completions)

    def samples(self) -> PointSamples:
        """Return the rows of the samples file."""
        measures = {}
        for name in MEASURES:
            values = [getattr(own, name) for own in self.completions]
            if None not in values:
                measures[name] = np.array(values, dtype=np.float64)
        return PointSamples(
            completions=tuple(own.text for own in self.completions),
            scores=self.scores,
            tokens=np.array([len(own.tokens) for own in self.completions], dtype=np.int32),
            ended_by_eos=np.array([own.ended_by_eos for own in self.completions]),
            measures=measures,
            per_prompt=self.per_prompt,
        )


class Bench:
    """Measures points; the model and the rewards are loaded when the first point needs them."""

    def __init__(
        self,
        resolved: Resolved,
        plan: Plan,
        examples: Sequence[Example],
        start: Adapter | None,
        out: Path,
        progress: Progress,
    ) -> None:
        recipe = resolved.recipe
        self.dtype = _resolved_dtype(recipe)
        self.prompts_sha256 = sha256_json([[example.id, example.prompt] for example in examples])
        self._recipe, self._plan, self._examples, self._start = recipe, plan, examples, start
        self._base, self._rewards = resolved.base, resolved.rewards
        self._out, self._progress = out, progress
        self._resident: Resident | None = None
        self._vllm: Vllm | None = None
        self._rows = {example.id: _identity(example) for example in examples}

    def measure(self, points: Sequence[PlannedPoint]) -> dict[PlannedPoint, Measured]:
        """Return what was measured at each point, now or earlier; points that another sweep is at come last."""
        missing = {point: len(self._missing(self._kept(point).completions())) for point in points}
        total = len(points) * len(self._examples)
        self._progress.start("eval", total, total - sum(missing.values()))
        done: dict[PlannedPoint, Measured] = {}
        for wait in (False, True):
            for point in points:
                if point not in done:
                    with self._kept(point).held(wait=wait) as mine:
                        if mine or wait:
                            done[point] = self._measure(point, missing[point])
        self._progress.finish()
        return {point: done[point] for point in points}

    def _measure(self, point: PlannedPoint, expected: int) -> Measured:
        """Generate what has not been generated, score what has not been scored, and keep both.

        Fewer prompts than ``expected`` may be missing: those of an equal model, or of another sweep, serve too.
        """
        keeping = self._kept(point)
        rows = keeping.completions()
        missing = self._missing(rows)
        self._progress.skip(expected - len(missing))
        if missing:
            self._load()
            began = time.perf_counter()
            done = self._complete(point, missing)
            rows |= {self._rows[name]: row for name, row in done.items()}
            keeping.keep_completions(rows, keeping.seconds() + time.perf_counter() - began)
        each = self._recipe.evaluation.samples
        pairs = [(example, own) for example in self._examples for own in rows[self._rows[example.id]][:each]]
        samples = [sample_of(example, own.text, own.tokens) for example, own in pairs]
        scores = score_or_recall(self._rewards, keeping, samples)
        return Measured(tuple(own for _, own in pairs), scores, each, keeping.seconds())

    def _missing(self, rows: Mapping[str, list[Completion]]) -> list[Example]:
        """Return the prompts without enough completions, or without the measures asked for."""
        settings = self._recipe.evaluation
        measures = settings.measures and settings.engine == "transformers"

        def enough(row: list[Completion]) -> bool:
            return len(row) >= settings.samples and not (measures and any(own.kl is None for own in row))

        return [example for example in self._examples if not enough(rows.get(self._rows[example.id], []))]

    def _complete(self, point: PlannedPoint, examples: Sequence[Example]) -> dict[str, list[Completion]]:
        def on_prompt() -> None:
            self._progress.advance(point.id)

        mixed = self._plan.mixed(point) if point.kind not in ("ensemble", "mod") else None
        if self._recipe.evaluation.engine == "vllm":
            assert self._vllm is not None
            assert not isinstance(mixed, Mixture)
            return self._vllm.complete(mixed, examples, on_prompt)
        resident = self._resident
        assert resident is not None
        if point.kind in ("ensemble", "mod"):
            adapters = adapters_in(self._plan.adapters)
            return resident.complete(resident.ensemble(point.kind, adapters, point.used), examples, on_prompt)
        return resident.complete(resident.subject(mixed), examples, on_prompt)

    def _load(self) -> None:
        """Load what generates, the first time; it is not part of any point's time."""
        settings = self._recipe.evaluation
        if settings.engine == "vllm":
            if self._vllm is None:
                adapters = adapters_in(self._plan.adapters).values()
                ranks = [layer.rank for adapter in adapters for layer in adapter.layers.values()]
                count = len(self._plan.ingredients) if self._plan.method == "cat" else 1
                self._vllm = Vllm(self._recipe, self._base, self.dtype, count * max(ranks, default=1))
        elif self._resident is None:
            self._resident = Resident(
                self._base.load(self.dtype),
                settings,
                self._recipe.seed,
                self._start,
                self._examples,
                self._progress.say,
                second=self._plan.base is not None and settings.measures,
            )

    def _kept(self, point: PlannedPoint) -> Kept:
        """Return where a point's model keeps what it said, named by everything that decides it but the prompts."""
        settings = self._recipe.evaluation
        generation = [settings.max_new_tokens, settings.temperature, self.dtype, settings.engine]
        seed = self._recipe.seed if settings.temperature else None
        start = self._start.sha256 if self._start is not None else None
        model = [self._base.sha256, self._base.settings_sha256, start]
        return kept(self._out, sha256_json([SCHEMA, self._plan.identity(point), model, generation, seed])[:32])


def _identity(example: Example) -> str:
    """Return a hash of what decides an example's completion and the answer that is read of it."""
    return sha256_json([example.id, example.response, len(example.prefix_tokens), *example.tokens])[:24]


def _resolved_dtype(recipe: Recipe) -> str:
    """Return the dtype of the weights: float32 on the CPU and that of training elsewhere, unless the recipe says it."""
    device, name = pick_device(), recipe.evaluation.dtype
    if name == "auto" and device.type != "cpu":
        name = recipe.model.dtype
    return str(pick_dtype(name, device, exact=True)).removeprefix("torch.")
