"""Measures points, now or earlier: what is kept is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from rsoup.adapters import Adapter
from rsoup.evaluation.benchmarking import Benchmarking, Place
from rsoup.evaluation.cache import SCHEMA, Completion, Kept, kept
from rsoup.evaluation.generation import Resident
from rsoup.evaluation.ingredients import adapters_in
from rsoup.evaluation.plan import Plan
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.records import Floats
from rsoup.evaluation.samples import MEASURES, PointSamples
from rsoup.evaluation.scoring import score_or_recall
from rsoup.evaluation.sharing import Sharing, may_share
from rsoup.evaluation.vllm import Vllm
from rsoup.files import sha256_json
from rsoup.harness.outcome import Outcome
from rsoup.mixing.checkpoints import Mixture
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import model_source, pick_device, pick_dtype
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.resolve import Resolved
from rsoup.rewards.samples import Sample, sample_of
from rsoup.tasks.loading import Example


@dataclass(frozen=True)
class Measured:
    """The completions of a point, ``per_prompt`` for each prompt in the order of the prompts, and their scores."""

    completions: tuple[Completion, ...]
    scores: Mapping[str, Floats]  # reward name -> (completions,)
    per_prompt: int
    seconds: float
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)  # benchmark -> what it said

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


class Elsewhere(Protocol):
    """Other processes; what they measure gets to the folder of the bench."""

    @property
    def dtype(self) -> str:
        """The type of the weights."""

    def measure(self, point: PlannedPoint, plan: Plan, start: Adapter | None) -> None:
        """Have a point measured."""


class Bench:
    """Measures points; the model and the rewards are loaded when the first point needs them.

    With ``elsewhere``, what is missing is measured there. ``load`` loads the base, if not the base itself does.
    """

    def __init__(
        self,
        resolved: Resolved,
        plan: Plan,
        examples: Sequence[Example],
        start: Adapter | None,
        out: Path,
        progress: Progress,
        elsewhere: Elsewhere | None = None,
        load: Callable[[str], LanguageModel] | None = None,
    ) -> None:
        recipe = resolved.recipe
        self.dtype = elsewhere.dtype if elsewhere is not None else dtype_of(recipe)
        self.prompts_sha256 = sha256_json([[example.id, example.prompt] for example in examples])
        self.plan, self.start = plan, start
        self._recipe, self._examples, self._elsewhere = recipe, examples, elsewhere
        self._base, self._rewards = resolved.base, resolved.rewards
        self._load_base = load or resolved.base.load
        self._out, self.progress = out, progress
        self._resident: Resident | None = None
        self._vllm: Vllm | None = None
        self._sharing: Sharing | None = None
        self._rows = {example.id: _identity(example) for example in examples}
        benchmarks = resolved.benchmarks
        self._benchmarking = Benchmarking(benchmarks, recipe.evaluation.lm_eval, self.kept_outcomes, self._place)
        self.identity = tuple(own.sha256 for own in benchmarks)
        """What decides what benchmarks say."""

    def measure(self, points: Sequence[PlannedPoint]) -> dict[PlannedPoint, Measured]:
        """Return what was measured at each point, now or earlier; points that another sweep is at come last."""
        if self._elsewhere is not None:
            for point in points:
                if self.lacks(point):
                    self._elsewhere.measure(point, self.plan, self.start)
        missing = {point: len(self._missing(self.kept(point).completions())) for point in points}
        total = len(points) * len(self._examples)
        self.progress.start("eval", total, total - sum(missing.values()))
        done = self._measure_together(points, missing) if self._elsewhere is None else {}
        for wait in (False, True):
            for point in points:
                if point not in done:
                    if wait:
                        self.progress.say(f"Another sweep is at {point.id}; waiting for it.")
                    with self.kept(point).held(wait=wait) as mine:
                        if mine or wait:
                            done[point] = self._measure(point, missing[point])
        self.progress.finish()
        outcomes = self._benchmarking.measure(points, self.progress)
        return {point: replace(done[point], outcomes=outcomes[point]) for point in points}

    def ask_judges_first(self) -> None:
        """Raise RewardError for a judge that cannot be asked, before anything is generated for it."""
        judges = [reward for reward in self._rewards.values() if reward.section.judge is not None]
        if judges and any(self.lacks(point) for point in self.plan.points):
            _ = [reward.scorer for reward in judges]

    def lacks(self, point: PlannedPoint) -> bool:
        """Tell whether a completion, a score or a benchmark of a point is not there yet."""
        keeping = self.kept(point)
        rows = keeping.completions()
        if self._missing(rows) or self._benchmarking.lacks(point):
            return True
        keys = {sample.key() for _, sample in self._samples(rows)}
        return any(not keys <= keeping.scores(reward.sha256).keys() for reward in self._rewards.values())

    def _samples(self, rows: Mapping[str, list[Completion]]) -> list[tuple[Completion, Sample]]:
        each = self._recipe.evaluation.samples
        pairs = [(example, own) for example in self._examples for own in rows[self._rows[example.id]][:each]]
        return [(own, sample_of(example, own.text, own.tokens)) for example, own in pairs]

    def _measure(self, point: PlannedPoint, expected: int) -> Measured:
        """Generate what has not been generated, score what has not been scored, and keep both.

        Fewer prompts than ``expected`` may be missing: those of an equal model, or of another sweep, serve too.
        """
        keeping = self.kept(point)
        rows = keeping.completions()
        missing = self._missing(rows)
        self.progress.skip(expected - len(missing))
        if missing:
            self._load()
            began = time.perf_counter()
            done = self._complete(point, missing)
            seconds = time.perf_counter() - began
            rows |= self._keep(point, rows, done, seconds)
            if self._sharing is not None:
                self._sharing.took(seconds / len(missing), points=1)
        pairs = self._samples(rows)
        scores = score_or_recall(self._rewards, keeping, [sample for _, sample in pairs])
        return Measured(tuple(own for own, _ in pairs), scores, self._recipe.evaluation.samples, keeping.seconds())

    def _measure_together(
        self, points: Sequence[PlannedPoint], missing: dict[PlannedPoint, int]
    ) -> dict[PlannedPoint, Measured]:
        """Measure points that share batches, if any do, but those that another sweep is at."""
        done: dict[PlannedPoint, Measured] = {}
        candidates = [point for point in points if missing[point] and may_share(self.plan, point, self.dtype)]
        if len(candidates) < 2 or self._recipe.model.placement != "auto":
            return done
        self._load()
        assert self._resident is not None
        sharing = self._sharing = Sharing(self.plan, self._resident, self._examples, self._say)
        for group in sharing.groups(candidates, missing):
            with ExitStack() as locks:
                mine = [point for point in group if locks.enter_context(self.kept(point).held(wait=False))]
                self._complete_together(sharing, mine, missing)
                done |= {point: self._measure(point, missing[point]) for point in mine}
        self._sharing = None
        return done

    def _complete_together(
        self, sharing: Sharing, points: Sequence[PlannedPoint], missing: dict[PlannedPoint, int]
    ) -> None:
        """Generate what several points lack, and keep it; a single one is left to ``_measure``."""
        rows = {point: self.kept(point).completions() for point in points}
        lacking = {point: own for point in points if (own := self._missing(rows[point]))}
        if len(lacking) < 2:
            return
        for point, own in lacking.items():
            self.progress.skip(missing[point] - len(own))
            missing[point] = 0
        began = time.perf_counter()
        found = sharing.complete(lacking, lambda point: self.progress.advance(point.id))
        each = (time.perf_counter() - began) / sum(map(len, lacking.values()))
        sharing.took(each, points=len(lacking))
        for point, done in found.items():
            self._keep(point, rows[point], done, each * len(done))

    def _keep(
        self,
        point: PlannedPoint,
        rows: Mapping[str, list[Completion]],
        done: Mapping[str, list[Completion]],
        seconds: float,
    ) -> dict[str, list[Completion]]:
        """Keep new completions, by the id of the example, beside those there are; return them by the key of the row."""
        keeping, new = self.kept(point), {self._rows[name]: row for name, row in done.items()}
        keeping.keep_completions({**rows, **new}, keeping.seconds() + seconds)
        return new

    def _missing(self, rows: Mapping[str, list[Completion]]) -> list[Example]:
        """Return the prompts without enough completions, or without the measures asked for."""
        settings = self._recipe.evaluation
        measures = settings.measures and settings.engine == "transformers"

        def enough(row: list[Completion]) -> bool:
            return len(row) >= settings.samples and not (measures and any(own.kl is None for own in row))

        return [example for example in self._examples if not enough(rows.get(self._rows[example.id], []))]

    def _complete(self, point: PlannedPoint, examples: Sequence[Example]) -> dict[str, list[Completion]]:
        def on_prompt() -> None:
            self.progress.advance(point.id)

        mixed = self.plan.mixed(point) if point.kind not in ("ensemble", "mod") else None
        if self._recipe.evaluation.engine == "vllm":
            assert self._vllm is not None
            assert not isinstance(mixed, Mixture)
            return self._vllm.complete(mixed, examples, on_prompt)
        resident = self._resident
        assert resident is not None
        if point.kind in ("ensemble", "mod"):
            adapters = adapters_in(self.plan.adapters)
            return resident.complete(resident.ensemble(point.kind, adapters, point.used), examples, on_prompt)
        return resident.complete(resident.subject(mixed), examples, on_prompt)

    def _load(self) -> None:
        """Load what generates, the first time; it is not part of any point's time."""
        settings = self._recipe.evaluation
        if settings.engine == "vllm":
            if self._vllm is None:
                adapters = adapters_in(self.plan.adapters).values()
                ranks = [layer.rank for adapter in adapters for layer in adapter.layers.values()]
                count = len(self.plan.ingredients) if self.plan.method == "cat" else 1
                self._vllm = Vllm(self._recipe, self._base, self.dtype, count * max(ranks, default=1))
        elif self._resident is None:
            self._resident = Resident(
                self._load_base(self.dtype),
                settings,
                self._recipe.seed,
                self.start,
                self._examples,
                self._say,
                second=self.plan.base is not None and settings.measures,
            )

    def _say(self, text: str) -> None:
        self.progress.say(text)

    def kept(self, point: PlannedPoint) -> Kept:
        """Return where a point's model keeps what it said, named by everything that decides it but the prompts."""
        settings = self._recipe.evaluation
        generation = [settings.max_new_tokens, settings.temperature, self.dtype, settings.engine]
        seed = self._recipe.seed if settings.temperature else None
        start = self.start.sha256 if self.start is not None else None
        model = [self._base.sha256, self._base.settings_sha256, start]
        return kept(self._out, sha256_json([SCHEMA, self.plan.identity(point), model, generation, seed])[:32])

    def folders(self, point: PlannedPoint) -> list[Kept]:
        """Return all that is kept of a point's model: completions, and what benchmarks say if there are any."""
        return [self.kept(point), *([self.kept_outcomes(point)] if self.identity else [])]

    def kept_outcomes(self, point: PlannedPoint) -> Kept:
        """Return where a point's model keeps what benchmarks say of it, however prompts are completed."""
        model = [self._base.sha256, self._base.settings_sha256, self.dtype]
        return kept(self._out, sha256_json(["benchmarks", self.plan.identity(point), model])[:32])

    def _place(self) -> Place:
        self._load()
        resident, base = self._resident, self._base
        assert resident is not None
        return Place(
            resident.model,
            model_source(base.place or base.name),
            base.section.revision,
            lambda point: resident.subject(self.plan.mixed(point)).change,
        )


def _identity(example: Example) -> str:
    """Return a hash of what decides an example's completion and the answer that is read of it."""
    return sha256_json([example.id, example.response, len(example.prefix_tokens), *example.tokens])[:24]


def dtype_of(recipe: Recipe) -> str:
    """Return the dtype of the weights: float32 on the CPU and that of training elsewhere, unless the recipe says it."""
    device, name = pick_device(), recipe.evaluation.dtype
    if name == "auto" and device.type != "cpu":
        name = recipe.model.dtype
    return str(pick_dtype(name, device, exact=True)).removeprefix("torch.")
