"""What results.json holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, Strict, model_validator

from rsoup.recipe import Direction

SCHEMA: Literal[1] = 1
SAMPLES_NAME = "samples.parquet"

Kind = Literal["base", "expert", "soup", "morl", "ensemble", "mod", "mix", "checkpoint", "model"]
"""What a point is; a mix is one of a front of its own, a model one of which nothing more is known."""
AdapterKind = Literal["init", "expert", "morl", "soup", "checkpoint", "model"]
Floats = NDArray[np.float64]


class Record(BaseModel):
    """A frozen record that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)


class Score(Record):
    """The mean of the ``n`` scores there are and its standard error, which a single score does not have."""

    mean: FiniteFloat
    stderr: Annotated[FiniteFloat, Field(ge=0)] | None
    n: Annotated[int, Field(ge=1)]


class Point(Record):
    """One evaluated model: the weights it was mixed with and its score on every reward."""

    id: Annotated[str, Field(min_length=1)]
    kind: Kind
    weights: dict[str, FiniteFloat]
    lam: Annotated[FiniteFloat | None, Field(alias="lambda")]
    scores: dict[str, Score]
    extras: dict[str, FiniteFloat] = {}
    benchmarks: dict[str, Score] = {}
    """What benchmarks say, by labels such as ``gsm8k.exact_match,strict-match``; ``n`` counts documents."""


class Cost(Record):
    """What a training took, up to the adapter that was measured; ``tokens`` are those of sampled completions.

    Its seconds are in timing.json: results are the same whenever they are made.
    """

    optimizer_steps: Annotated[int, Field(ge=0)]
    tokens: Annotated[int, Field(ge=0)]


class Front(Record):
    """The points of a front of its own, ids of points of any kind."""

    points: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]


class Adapter(Record):
    """Where an evaluated adapter or model lay, what its bytes were, the rewards it was trained on, and at what cost."""

    path: str
    sha256: str | None
    kind: AdapterKind
    rewards: dict[str, FiniteFloat] | None = None
    cost: Cost | None = None


class Base(Record):
    """The model the adapters were added to."""

    name: str
    sha256: str | None


class Generation(Record):
    """How the completions were made; further settings are kept as they are."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[FiniteFloat, Field(ge=0)]
    dtype: str
    samples_per_prompt: Annotated[int, Field(ge=1)] = 1


class Prompts(Record):
    """Which prompts were completed: the same ones at every point."""

    count: Annotated[int, Field(ge=1)]
    sha256: str
    split: str
    left_out: Annotated[int, Field(ge=0)] = 0
    """Held-out rows whose prompts are too long for the task or for the model."""


class Benchmark(Record):
    """How a benchmark was measured; it counts by the metric ``main``, and ``directions`` has all of its metrics."""

    main: str
    directions: dict[str, Direction | None]
    documents: Annotated[int, Field(ge=1)]
    num_fewshot: int | None
    version: str
    sha256: str

    @property
    def lowered(self) -> bool:
        """Whether lower is better by the main metric."""
        return self.directions[self.main] == "minimize"

    @model_validator(mode="after")
    def _main_is_one(self) -> Benchmark:
        if self.main not in self.directions:
            raise ValueError(f"benchmarks: {self.main!r} is not one of {', '.join(self.directions)}")
        return self


class Results(Record):
    """Everything results.json holds; scores are keyed by reward name."""

    schema_number: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    recipe: str | None
    task: str | None
    seed: int
    base_model: Base
    generation: Generation
    prompts: Prompts
    rewards: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
    directions: dict[str, Direction] = {}
    """Which way rewards are better; the key is left out of the file where larger is better for all."""
    adapters: dict[str, Adapter]
    method: str | None
    points: Annotated[tuple[Point, ...], Strict(False), Field(min_length=1)]
    fronts: dict[str, Front] = {}
    """Fronts beside the soups', by name; the key is left out of the file where there are none."""
    benchmarks: dict[str, Benchmark] = {}
    """Benchmarks by name; this key, and the points' own, are left out of the file where there are none."""
    samples: str | None = SAMPLES_NAME
    seconds: FiniteFloat | None = None
    versions: dict[str, str] = {}

    @property
    def minimized(self) -> frozenset[str]:
        """The rewards of which lower scores are better."""
        return frozenset(name for name, way in self.directions.items() if way == "minimize")

    def as_json(self) -> dict[str, Any]:
        """Return what results.json holds."""
        empty: dict[str, Any] = {
            name: True for name in ("directions", "fronts", "benchmarks") if not getattr(self, name)
        }
        if not self.benchmarks:
            empty["points"] = {"__all__": {"benchmarks"}}
        return self.model_dump(mode="json", by_alias=True, exclude=empty)

    @property
    def labels(self) -> dict[str, str]:
        """The metrics of benchmarks by label, and by shorter names that tell one alone; ``gsm8k`` is its main one."""
        found: dict[str, str] = {}
        several: set[str] = set()
        for label in (label for own in self.benchmarks.values() for label in own.directions):
            short = label.partition(",")[0]
            several |= {short} & found.keys()
            found[short] = label
        found = {short: label for short, label in found.items() if short not in several}
        mains = {name: own.main for name, own in self.benchmarks.items()}
        return found | {label: label for own in self.benchmarks.values() for label in own.directions} | mains

    @model_validator(mode="after")
    def _agree(self) -> Results:
        """Check that points, rewards and adapters speak of each other."""
        _refuse_repeats("rewards", self.rewards)
        unknown = next((name for name in self.directions if name not in self.rewards), None)
        if unknown is not None:
            raise ValueError(f"directions: {unknown!r} is not one of {', '.join(self.rewards)}")
        _refuse_repeats("points", [point.id for point in self.points])
        for point in self.points:
            _check_point(point, self)
        known = {point.id for point in self.points}
        for name, front in self.fronts.items():
            if lost := next((own for own in front.points if own not in known), None):
                raise ValueError(f"fronts: {name!r} names the point {lost!r}, which is not in this file")
        if self.samples is not None and Path(self.samples).name != self.samples:
            raise ValueError(f"samples: {self.samples!r} is not the name of a file beside this one")
        return self

    def point(self, point_id: str) -> Point:
        """Return the point of that id."""
        return next(point for point in self.points if point.id == point_id)


def summarise(values: Floats) -> Score:
    """Return mean, standard error (n - 1 degrees of freedom) and count of scores (prompts,), NaN left out."""
    values = values[~np.isnan(values)]
    count = len(values)
    stderr = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else None
    return Score(mean=float(np.mean(values)), stderr=stderr, n=count)


def _refuse_repeats(what: str, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: {name!r} is there twice")


def _check_point(point: Point, results: Results) -> None:
    where = f"point {point.id!r}"
    for name in results.rewards:
        if name not in point.scores:
            raise ValueError(f"{where}: the reward {name!r} is missing")
    for name in point.scores:
        if name not in results.rewards:
            raise ValueError(f"{where}: the reward {name!r} is not one of {', '.join(results.rewards)}")
    for name, own in results.benchmarks.items():
        if own.main not in point.benchmarks:
            raise ValueError(f"{where}: the benchmark {name!r} is missing")
    for label in point.benchmarks:
        if not any(label in own.directions for own in results.benchmarks.values()):
            raise ValueError(f"{where}: {label!r} is no metric of a benchmark of this file")
    for name in point.weights:
        if name not in results.adapters:
            raise ValueError(f"{where}: the weight {name!r} belongs to no adapter of this file")
    if point.kind != "base" and not point.weights:
        raise ValueError(f"{where}: kind {point.kind!r} has no weights")
