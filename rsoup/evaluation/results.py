"""The files an evaluation leaves: results.json (means, standard errors) and samples.parquet (every completion)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, Strict, ValidationError, model_validator

from rsoup.errors import ResultsError
from rsoup.files import read_json, whole_file, write_json

SCHEMA: Literal[1] = 1
SAMPLES_NAME = "samples.parquet"
AGAIN = "Make the file again with rsoup eval."

Kind = Literal["base", "expert", "soup", "morl"]
AdapterKind = Literal["init", "expert", "morl", "soup"]
Floats = NDArray[np.float64]


class Record(BaseModel):
    """A frozen record that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)


class Score(Record):
    """The mean of ``n`` scores and its standard error, which a single score does not have."""

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


class Adapter(Record):
    """Where an evaluated adapter lay, what its bytes were, and what a MORL run was trained on."""

    path: str
    sha256: str | None
    kind: AdapterKind
    rewards: dict[str, FiniteFloat] | None = None


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


class Prompts(Record):
    """Which prompts were completed: the same ones at every point."""

    count: Annotated[int, Field(ge=1)]
    sha256: str
    split: str


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
    adapters: dict[str, Adapter]
    method: str | None
    points: Annotated[tuple[Point, ...], Strict(False), Field(min_length=1)]
    samples: str | None = SAMPLES_NAME
    seconds: FiniteFloat | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _agree(self) -> Results:
        """Check that points, rewards and adapters speak of each other."""
        _refuse_repeats("rewards", self.rewards)
        _refuse_repeats("points", [point.id for point in self.points])
        for point in self.points:
            _check_point(point, self)
        if self.samples is not None and Path(self.samples).name != self.samples:
            raise ValueError(f"samples: {self.samples!r} is not the name of a file beside this one")
        return self

    def point(self, point_id: str) -> Point:
        """Return the point of that id."""
        return next(point for point in self.points if point.id == point_id)


@dataclass(frozen=True)
class PointSamples:
    """The completions of one point, one for each prompt in the order of the prompts."""

    completions: tuple[str, ...]
    scores: Mapping[str, Floats]  # reward name -> (prompts,)
    tokens: NDArray[np.int32]  # (prompts,)
    ended_by_eos: NDArray[np.bool_]  # (prompts,)

    def summary(self) -> dict[str, Score]:
        """Return the mean score on every reward with its standard error."""
        return {name: summarise(values) for name, values in self.scores.items()}


@dataclass(frozen=True)
class Samples:
    """Every completion with every score; each point completes the same prompts."""

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    points: Mapping[str, PointSamples]


def summarise(values: Floats) -> Score:
    """Return mean, standard error (n - 1 degrees of freedom) and count of scores of shape (prompts,)."""
    count = len(values)
    stderr = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else None
    return Score(mean=float(np.mean(values)), stderr=stderr, n=count)


def read_results(path: Path) -> Results:
    """Read ``results.json``, or the one in the folder ``path``; refuse whatever is not whole and consistent."""
    path = results_file(path)
    content = read_json(path, schema=SCHEMA, what="a results file", error=ResultsError)
    try:
        return Results.model_validate(content)
    except ValidationError as problem:
        raise ResultsError(f"{path}: {_first_problem(problem, content)}.", AGAIN) from problem


def write_results(path: Path, results: Results, samples: Samples) -> None:
    """Write ``results`` to the file ``path`` and ``samples`` beside it; the samples are whole before the results exist.

    Refuses points whose means are not those of their samples.
    """
    if results.samples is None:
        raise ResultsError(f"{path}: the results name no samples file.", f"Set samples to {SAMPLES_NAME}.")
    _check_samples(path, results, samples)
    write_samples(path.parent / results.samples, samples, results.rewards)
    write_json(path, results.model_dump(mode="json", by_alias=True))


def read_samples(path: Path, results: Results) -> Samples:
    """Read the samples that belong to ``results`` read from ``path``, and check that they agree with each other."""
    file = results_file(path).parent / (results.samples or SAMPLES_NAME)
    table = _read_table(file, results.rewards)
    rows: dict[str, list[int]] = {point.id: [] for point in results.points}
    for row, point_id in enumerate(table["point"]):
        if point_id not in rows:
            raise ResultsError(f"{file}: row {row}: point {point_id!r} is not in the results.", AGAIN)
        rows[point_id].append(row)
    first = rows[results.points[0].id]
    prompt_ids = tuple(table["prompt_id"][row] for row in first)
    place = {prompt_id: number for number, prompt_id in enumerate(prompt_ids)}
    points = {
        point_id: _point_samples(table, _aligned(file, point_id, own, table["prompt_id"], place), results.rewards)
        for point_id, own in rows.items()
    }
    samples = Samples(prompt_ids, tuple(table["prompt"][row] for row in first), points)
    _check_samples(file, results, samples)
    return samples


def write_samples(path: Path, samples: Samples, rewards: tuple[str, ...]) -> None:
    """Write one row per point and prompt."""
    points = samples.points.values()
    columns: dict[str, pa.Array] = {
        "point": pa.array([point_id for point_id in samples.points for _ in samples.prompt_ids], pa.string()),
        "prompt_id": pa.array(list(samples.prompt_ids) * len(points), pa.string()),
        "prompt": pa.array(list(samples.prompts) * len(points), pa.string()),
        "completion": pa.array([text for point in points for text in point.completions], pa.string()),
    }
    for name in rewards:
        columns[f"score:{name}"] = pa.array(np.concatenate([point.scores[name] for point in points]), pa.float64())
    columns["tokens"] = pa.array(np.concatenate([point.tokens for point in points]), pa.int32())
    columns["ended_by_eos"] = pa.array(np.concatenate([point.ended_by_eos for point in points]), pa.bool_())
    with whole_file(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")


def results_file(path: Path) -> Path:
    """Return the results file that ``path``, a file or a folder that holds one, stands for."""
    return path / "results.json" if path.is_dir() else path


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
    for name in point.weights:
        if name not in results.adapters:
            raise ValueError(f"{where}: the weight {name!r} belongs to no adapter of this file")
    if point.kind != "base" and not point.weights:
        raise ValueError(f"{where}: kind {point.kind!r} has no weights")


def _first_problem(problem: ValidationError, content: dict[str, Any]) -> str:
    """Return the first validation error as ``key: reason``, points by their id."""
    error = problem.errors(include_url=False)[0]
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    place = list(error["loc"])
    words = [".".join(str(part) for part in place)]
    if place[:1] == ["points"] and len(place) > 1:
        point = content["points"][place[1]]
        name = point.get("id", place[1]) if isinstance(point, dict) else place[1]
        words = [f"point {name!r}", ".".join(str(part) for part in place[2:])]
    return ": ".join([word for word in words if word] + [error["msg"]])


def _read_table(file: Path, rewards: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns of a samples file: texts as lists, numbers as arrays."""
    try:
        return _columns(file, pq.read_table(file), rewards)
    except FileNotFoundError as problem:
        raise ResultsError(f"{file}: the samples of the results are missing.", AGAIN) from problem
    except (pa.ArrowException, OSError, UnicodeError) as problem:
        raise ResultsError(f"{file}: is not a whole parquet file ({_first_line(problem)}).", AGAIN) from problem


def _columns(file: Path, table: pa.Table, rewards: tuple[str, ...]) -> dict[str, Any]:
    types = {name: pa.string() for name in ("point", "prompt_id", "prompt", "completion")}
    types |= {f"score:{name}": pa.float64() for name in rewards}
    types |= {"tokens": pa.int32(), "ended_by_eos": pa.bool_()}
    columns: dict[str, Any] = {}
    for name, kind in types.items():
        if name not in table.column_names:
            raise ResultsError(f"{file}: the column {name!r} is missing.", AGAIN)
        column = table.column(name)
        if column.type != kind:
            raise ResultsError(f"{file}: the column {name!r} holds {column.type}, not {kind}.", AGAIN)
        if column.null_count:
            raise ResultsError(f"{file}: the column {name!r} has empty cells.", AGAIN)
        columns[name] = column.to_pylist() if kind == pa.string() else column.to_numpy()
    return columns


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _aligned(file: Path, point_id: str, rows: list[int], prompt_ids: list[str], place: dict[str, int]) -> list[int]:
    """Return the rows of a point in the order of the prompts of the first point."""
    ordered = {place.get(prompt_ids[row], -1): row for row in rows}
    if len(rows) != len(place) or sorted(ordered) != list(range(len(place))):
        raise ResultsError(f"{file}: point {point_id!r} does not complete the same prompts as the first point.", AGAIN)
    return [ordered[number] for number in range(len(place))]


def _point_samples(table: dict[str, Any], rows: list[int], rewards: tuple[str, ...]) -> PointSamples:
    return PointSamples(
        completions=tuple(table["completion"][row] for row in rows),
        scores={name: table[f"score:{name}"][rows] for name in rewards},
        tokens=table["tokens"][rows],
        ended_by_eos=table["ended_by_eos"][rows],
    )


def _check_samples(file: Path, results: Results, samples: Samples) -> None:
    """Refuse samples that are not those the results were made from."""
    if len(set(samples.prompt_ids)) != results.prompts.count or len(samples.prompts) != results.prompts.count:
        _refuse(file, f"the samples hold {len(set(samples.prompt_ids))} prompts, the results {results.prompts.count}")
    for point in results.points:
        if point.id not in samples.points:
            _refuse(file, f"point {point.id!r} has no samples")
        own = samples.points[point.id]
        columns = (own.completions, own.tokens, own.ended_by_eos, *(own.scores[name] for name in results.rewards))
        if any(len(column) != results.prompts.count for column in columns):
            _refuse(file, f"point {point.id!r} does not hold one sample for each prompt")
        for name in results.rewards:
            _check_mean(file, point, name, own.scores[name])


def _check_mean(file: Path, point: Point, name: str, values: Floats) -> None:
    where = f"point {point.id!r}, reward {name!r}"
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        _refuse(file, f"{where}: the score of prompt {bad[0]} is {values[bad[0]]}, not a number")
    mean = float(np.mean(values))
    if not math.isclose(mean, point.scores[name].mean, rel_tol=1e-6, abs_tol=1e-9):
        _refuse(file, f"{where}: the samples have the mean {mean:.6g}, the results say {point.scores[name].mean:.6g}")


def _refuse(file: Path, what: str) -> NoReturn:
    raise ResultsError(f"{file}: {what}.", AGAIN)
