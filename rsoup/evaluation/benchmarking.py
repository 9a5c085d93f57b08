"""Measure points on benchmarks, after all completions; what is kept is not measured again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsoup.errors import ModelError, RsoupError, first_line
from rsoup.evaluation.cache import Kept
from rsoup.evaluation.memory import is_out_of_memory
from rsoup.evaluation.points import PlannedPoint
from rsoup.harness.outcome import Outcome
from rsoup.models.language_model import LanguageModel
from rsoup.progress import Progress
from rsoup.recipe import LmEvalSection

if TYPE_CHECKING:
    from rsoup.evaluation.resident_lm import ResidentLM
    from rsoup.harness.loading import Benchmark

Outcomes = dict[str, Outcome]


@dataclass(frozen=True)
class Place:
    """What measuring a benchmark takes: the resident model, where its tokenizer lies, and how it becomes a point."""

    model: LanguageModel
    tokenizer: str
    revision: str | None
    become: Callable[[PlannedPoint], AbstractContextManager[Any]]


class Benchmarking:
    """Measures points on benchmarks; the model is asked for when one is missing."""

    def __init__(
        self,
        benchmarks: Sequence[Benchmark],
        settings: LmEvalSection,
        kept: Callable[[PlannedPoint], Kept],
        place: Callable[[], Place],
    ) -> None:
        self._benchmarks, self._settings = benchmarks, settings
        self._kept, self._place = kept, place
        self._asked: ResidentLM | None = None
        self._progress: Progress
        self._note = ""
        self._last: float | None = None  # seconds of a whole point

    def lacks(self, point: PlannedPoint) -> bool:
        """Tell whether a benchmark was not measured at a point."""
        return bool(self._benchmarks) and len(self._found(point)) < len(self._benchmarks)

    def measure(self, points: Sequence[PlannedPoint], progress: Progress) -> dict[PlannedPoint, Outcomes]:
        """Return what the benchmarks say of each point, now or earlier; those another sweep is at come last."""
        if not self._benchmarks:
            return {point: {} for point in points}
        self._progress = progress
        missing = {point: self._left(self._found(point)) for point in points}
        total = len(points) * sum(own.count for own in self._benchmarks)
        progress.start("benchmarks", total, total - sum(missing.values()))
        done: dict[PlannedPoint, Outcomes] = {}
        for wait in (False, True):
            for point in (own for own in points if own not in done):
                if wait:
                    progress.say(f"Another sweep is at {point.id}; waiting for it.")
                with self._kept(point).held(wait=wait) as mine:
                    if mine or wait:
                        done[point] = self._measure(point, missing[point])
        progress.finish()
        return {point: done[point] for point in points}

    def _found(self, point: PlannedPoint) -> Outcomes:
        keeping = self._kept(point)
        found = {own.name: keeping.outcome(own.sha256) for own in self._benchmarks}
        return {name: outcome for name, outcome in found.items() if outcome is not None}

    def _left(self, found: Outcomes) -> int:
        return sum(own.count for own in self._benchmarks if own.name not in found)

    def _measure(self, point: PlannedPoint, expected: int) -> Outcomes:
        """Measure what has not been measured; less than expected may be missing, as in ``Bench``."""
        found = self._found(point)
        self._progress.skip(expected - self._left(found))
        missing = [own for own in self._benchmarks if own.name not in found]
        if missing:
            from rsoup.harness.quiet import quiet

            began, place = time.perf_counter(), self._place()
            with quiet(self._progress.say):
                asked = self._model(place)
                with place.become(point):
                    for own in missing:
                        found[own.name] = self._outcome(point, own, asked)
            self._last = time.perf_counter() - began
        return {own.name: found[own.name] for own in self._benchmarks}

    def _model(self, place: Place) -> ResidentLM:
        if self._asked is None:
            from rsoup.evaluation.resident_lm import ResidentLM

            self._asked = ResidentLM(
                place.model, place.tokenizer, place.revision, self._settings, self._say, self._advance
            )
        return self._asked

    def _outcome(self, point: PlannedPoint, benchmark: Benchmark, asked: ResidentLM) -> Outcome:
        from lm_eval import __version__

        from rsoup.harness.running import measure

        keeping = self._kept(point)
        self._note = f"{point.id} {benchmark.name}"
        if self._last is not None:
            self._note += f", {self._last:.3g} s a point"
        began = time.perf_counter()
        try:
            found = measure(benchmark, asked.with_answers(keeping.answers(__version__)), self._settings)
        except RsoupError:
            raise
        except Exception as problem:  # of a task's own functions, or lm-eval's
            if is_out_of_memory(problem):
                raise
            raise ModelError(
                f"The benchmark {benchmark.name} fails at {point.id}: {type(problem).__name__}: {first_line(problem)}.",
                "Mend the task, or leave it out; what was answered is kept.",
            ) from problem
        found = _finite(found, benchmark, point)
        found = replace(found, seconds=round(time.perf_counter() - began, 3))
        keeping.keep_outcome(benchmark.sha256, found)
        return found

    def _say(self, text: str) -> None:
        self._progress.say(text)

    def _advance(self, documents: int, earlier: int) -> None:
        self._progress.skip(earlier)
        for _ in range(documents - earlier):
            self._progress.advance(self._note)


def _finite(outcome: Outcome, benchmark: Benchmark, point: PlannedPoint) -> Outcome:
    """Return an outcome without metrics that are no numbers; ModelError if the benchmark counts by one of these."""
    main = outcome.figures.get(benchmark.main)
    if main is None or not math.isfinite(main.value):
        told = "nothing" if main is None else f"{main.value}"
        raise ModelError(
            f"The benchmark {benchmark.name} gives {told} for {benchmark.main} at {point.id}.",
            "Give it more documents (evaluation.lm_eval.limit), or leave it out.",
        )
    kept = {
        label: own for label, own in outcome.figures.items() if math.isfinite(own.value) and label in benchmark.ways
    }
    documents = tuple(
        replace(own, parts={label: part for label, part in own.parts.items() if label in kept})
        for own in outcome.documents
    )
    return replace(outcome, figures=kept, documents=documents)
