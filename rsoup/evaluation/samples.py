"""samples.parquet: every completion with every score, and the documents of benchmarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rsoup.errors import ResultsError, first_line
from rsoup.evaluation.documents import Documents, parted, read_documents, table_of
from rsoup.evaluation.records import Floats, Point, Results, Score, summarise
from rsoup.files import whole_file
from rsoup.tasks.plain import one_type

MEASURES = ("kl", "surprise")
"""Columns that an evaluation may leave out: measures of each completion, in nats."""
AGAIN = "Make the file again with rsoup eval."
COLUMN = "column:"
"""What the names of columns of the data begin with, so that none is taken for another."""


@dataclass(frozen=True)
class PointSamples:
    """The completions of one point, ``per_prompt`` for each prompt, prompt by prompt in the order of the prompts."""

    completions: tuple[str, ...]
    scores: Mapping[str, Floats]  # reward name -> (prompts * per_prompt,), NaN where it does not apply
    tokens: NDArray[Any]  # (prompts * per_prompt,)
    ended_by_eos: NDArray[Any]  # (prompts * per_prompt,)
    measures: Mapping[str, Floats] = field(default_factory=dict)  # such as kl -> (prompts * per_prompt,)
    per_prompt: int = 1

    def summary(self) -> dict[str, Score]:
        """Return the mean score on every reward with its standard error over the prompts that it applies to."""
        return {name: summarise(values) for name, values in self.by_prompt().scores.items()}

    def by_prompt(self) -> PointSamples:
        """Return one entry per prompt: its completions as one text, the means of their scores and lengths."""
        if self.per_prompt == 1:
            return self
        rows = range(0, len(self.completions), self.per_prompt)
        return PointSamples(
            completions=tuple(
                "\n".join(f"({n}) {text}" for n, text in enumerate(self.completions[row : row + self.per_prompt], 1))
                for row in rows
            ),
            scores={name: self._means_of_some(values) for name, values in self.scores.items()},
            tokens=self._means(self.tokens),
            ended_by_eos=self._means(self.ended_by_eos),
            measures={name: self._means(values) for name, values in self.measures.items()},
        )

    def _means(self, values: NDArray[Any]) -> Floats:
        means: Floats = values.reshape(-1, self.per_prompt).mean(axis=1)
        return means

    def _means_of_some(self, values: Floats) -> Floats:
        """Return each prompt's mean over the completions that have a score, NaN where none has."""
        there = ~np.isnan(values.reshape(-1, self.per_prompt))
        sums = np.where(there, values.reshape(-1, self.per_prompt), 0.0).sum(axis=1)
        means: Floats = np.divide(sums, there.sum(axis=1), out=np.full(len(sums), np.nan), where=there.any(axis=1))
        return means


@dataclass(frozen=True)
class Samples:
    """Every completion with every score; each point completes the same prompts.

    ``columns`` are those of the data, by name: a value for each prompt.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    points: Mapping[str, PointSamples]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    benchmarks: Mapping[str, Documents] = field(default_factory=dict)


def read_samples_file(file: Path, results: Results) -> Samples:
    """Read the samples of ``results``, one entry per prompt, and check that they agree with each other."""
    whole = _read_table(file)
    of_prompts, of_documents = parted(whole)
    table = _columns(file, of_prompts, results.rewards)
    rows: dict[str, list[int]] = {point.id: [] for point in results.points}
    for row, point_id in enumerate(table["point"]):
        if point_id not in rows:
            raise ResultsError(f"{file}: row {row}: point {point_id!r} is not in the results.", AGAIN)
        rows[point_id].append(row)
    first = {table["prompt_id"][row]: table["prompt"][row] for row in rows[results.points[0].id]}
    place = {prompt_id: number for number, prompt_id in enumerate(first)}
    each = results.generation.samples_per_prompt
    points = {}
    for point_id, own in rows.items():
        aligned = _aligned(file, point_id, own, table["prompt_id"], place, each)
        points[point_id] = _point_samples(table, aligned, results.rewards, each).by_prompt()
    where = {table["prompt_id"][row]: row for row in rows[results.points[0].id]}
    own = pa.array([where[prompt_id] for prompt_id in first])
    columns = {name: values.take(own).to_pylist() for name, values in table[COLUMN].items()}
    benchmarks = {name: read_documents(own) for name, own in of_documents.items()}
    samples = Samples(tuple(first), tuple(first.values()), points, columns, benchmarks)
    check_samples(file, results, samples)
    return samples


def write_samples(path: Path, samples: Samples, rewards: tuple[str, ...]) -> None:
    """Write one row per point and completion."""
    points = samples.points.values()
    each = next(iter(points)).per_prompt
    count = len(samples.prompt_ids)
    columns: dict[str, pa.Array] = {
        "point": pa.array([point_id for point_id in samples.points for _ in range(count * each)], pa.string()),
        "prompt_id": pa.array(np.repeat(samples.prompt_ids, each).tolist() * len(points), pa.string()),
        "prompt": pa.array([prompt for prompt in samples.prompts for _ in range(each)] * len(points), pa.string()),
        "sample": pa.array(list(range(each)) * count * len(points), pa.int32()),
        "completion": pa.array([text for point in points for text in point.completions], pa.string()),
    }
    for name in rewards:
        scores = np.concatenate([point.scores[name] for point in points])
        columns[f"score:{name}"] = pa.array(scores, pa.float64(), mask=np.isnan(scores))
    columns["tokens"] = _column([point.tokens for point in points], pa.int32())
    columns["ended_by_eos"] = _column([point.ended_by_eos for point in points], pa.bool_())
    for name in next(iter(points)).measures:
        if all(name in point.measures for point in points):
            columns[name] = _column([point.measures[name] for point in points], pa.float64())
    for name, values in samples.columns.items():
        own = [value for value in one_type(values) for _ in range(each)] * len(points)
        columns[f"{COLUMN}{name}"] = pa.array(own)
    tables = [pa.table(columns), *(table_of(name, own) for name, own in samples.benchmarks.items())]
    with whole_file(path) as partial:
        whole = pa.concat_tables(tables, promote_options="default")
        pq.write_table(whole, partial, compression="zstd", write_page_checksum=True)


def _column(parts: list[NDArray[Any]], kind: Any) -> Any:
    return pa.array(np.concatenate(parts), kind)


def _read_table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, page_checksum_verification=True)
    except FileNotFoundError as problem:
        raise ResultsError(f"{file}: the samples of the results are missing.", AGAIN) from problem
    except (pa.ArrowException, OSError, UnicodeError) as problem:
        raise ResultsError(f"{file}: is not a whole parquet file ({first_line(problem)}).", AGAIN) from problem


def _columns(file: Path, table: pa.Table, rewards: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns of completions: texts as lists, numbers as arrays."""
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
        is_score = name.startswith("score:")
        if column.null_count and not is_score:
            raise ResultsError(f"{file}: the column {name!r} has empty cells.", AGAIN)
        if is_score and (bad := np.flatnonzero(pc.is_nan(column).fill_null(False).to_numpy())).size:
            raise ResultsError(f"{file}: the column {name!r}, row {bad[0]}: the score is nan, not a number.", AGAIN)
        columns[name] = column.to_pylist() if kind == pa.string() else column.to_numpy()  # nulls become NaN
    for name in MEASURES:
        if name in table.column_names and table.column(name).type == pa.float64() and not table.column(name).null_count:
            columns[name] = table.column(name).to_numpy()
    own = [name for name in table.column_names if name.startswith(COLUMN)]
    columns[COLUMN] = {name.removeprefix(COLUMN): table.column(name) for name in own}
    return columns


def _aligned(
    file: Path, point_id: str, rows: list[int], prompt_ids: list[str], place: dict[str, int], each: int
) -> list[int]:
    """Return the rows of a point in the order of the prompts of the first point."""
    places = [place.get(prompt_ids[row], -1) for row in rows]
    if len(rows) != len(place) * each or sorted(places) != sorted([*range(len(place))] * each):
        raise ResultsError(f"{file}: point {point_id!r} does not complete the same prompts as the first point.", AGAIN)
    return [row for _, row in sorted(zip(places, rows, strict=True))]


def _point_samples(table: dict[str, Any], rows: list[int], rewards: tuple[str, ...], each: int) -> PointSamples:
    return PointSamples(
        completions=tuple(table["completion"][row] for row in rows),
        scores={name: table[f"score:{name}"][rows] for name in rewards},
        tokens=table["tokens"][rows],
        ended_by_eos=table["ended_by_eos"][rows],
        measures={name: table[name][rows] for name in MEASURES if name in table},
        per_prompt=each,
    )


def check_samples(file: Path, results: Results, samples: Samples) -> None:
    """Refuse samples that are not those the results were made from."""
    if len(set(samples.prompt_ids)) != results.prompts.count or len(samples.prompts) != results.prompts.count:
        _refuse(file, f"the samples hold {len(set(samples.prompt_ids))} prompts, the results {results.prompts.count}")
    for point in results.points:
        if point.id not in samples.points:
            _refuse(file, f"point {point.id!r} has no samples")
        own = samples.points[point.id].by_prompt()
        columns = (own.completions, own.tokens, own.ended_by_eos, *(own.scores[name] for name in results.rewards))
        if any(len(column) != results.prompts.count for column in columns):
            _refuse(file, f"point {point.id!r} does not hold one sample for each prompt")
        for name in results.rewards:
            _check_mean(file, f"point {point.id!r}, reward {name!r}", own.scores[name], point.scores[name].mean)
        for name in results.benchmarks:
            _check_parts(file, point, name, samples.benchmarks.get(name))


def _check_parts(file: Path, point: Point, name: str, documents: Documents | None) -> None:
    if documents is None or point.id not in documents.parts or not documents.alike:
        _refuse(file, f"point {point.id!r} does not have the documents of the benchmark {name}")
    for label, parts in documents.parts[point.id].items():
        if label in point.benchmarks:
            _check_mean(file, f"point {point.id!r}, {label}", parts, point.benchmarks[label].mean)


def _check_mean(file: Path, where: str, values: Floats, told: float) -> None:
    bad = np.flatnonzero(np.isinf(values))
    if bad.size:
        _refuse(file, f"{where}: the score of prompt {bad[0]} is {values[bad[0]]}, not a number")
    if np.isnan(values).all():
        _refuse(file, f"{where}: no prompt has a score")
    mean = float(np.nanmean(values))
    if not math.isclose(mean, told, rel_tol=1e-6, abs_tol=1e-9):
        _refuse(file, f"{where}: the samples have the mean {mean:.6g}, the results say {told:.6g}")


def _refuse(file: Path, what: str) -> NoReturn:
    raise ResultsError(f"{file}: {what}.", AGAIN)
