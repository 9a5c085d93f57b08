"""The documents of benchmarks in samples.parquet: rows beside those of completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsoup.evaluation.records import Floats
from rsoup.harness.outcome import Outcome

BENCHMARK = "benchmark"
"""The column that names a document's benchmark, empty for a completion; BENCHMARK:LABEL has parts in metrics."""


@dataclass(frozen=True)
class Documents:
    """The documents of a benchmark, and by point what was answered and each document's part in the metrics.

    The mean of the parts is the metric; NaN where a document has none. Metrics whose parts cannot be told are not here.
    """

    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]  # point -> (documents,)
    parts: Mapping[str, Mapping[str, Floats]]  # point -> label -> (documents,)

    @property
    def alike(self) -> bool:
        """Tell whether every point has an answer and parts for each document."""
        count = len(self.ids)
        parts = [len(values) for own in self.parts.values() for values in own.values()]
        return {count} == {*(len(own) for own in self.answers.values()), *parts, len(self.prompts)}

    @property
    def labels(self) -> tuple[str, ...]:
        """The metrics whose parts are known at every point."""
        first, *others = self.parts.values()
        return tuple(label for label in first if all(label in own for own in others))


def table_of(benchmark: str, documents: Documents) -> Any:
    """Return one row per point and document."""
    points, count = list(documents.answers), len(documents.ids)
    columns: dict[str, Any] = {
        "point": pa.array([point for point in points for _ in range(count)], pa.string()),
        "prompt_id": pa.array(list(documents.ids) * len(points), pa.string()),
        "prompt": pa.array(list(documents.prompts) * len(points), pa.string()),
        "sample": pa.array([0] * count * len(points), pa.int32()),
        "completion": pa.array([text for point in points for text in documents.answers[point]], pa.string()),
        BENCHMARK: pa.array([benchmark] * count * len(points), pa.string()),
    }
    for label in documents.labels:
        parts = np.concatenate([documents.parts[point][label] for point in points])
        columns[f"{BENCHMARK}:{label}"] = pa.array(parts, pa.float64(), mask=np.isnan(parts))
    return pa.table(columns)


def parted(table: pa.Table) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Return the rows of completions, and those of each benchmark's documents."""
    if BENCHMARK not in table.column_names:
        return table, {}
    names = table.column(BENCHMARK)
    own = [name for name in names.unique().to_pylist() if name is not None]
    completions = table.filter(pc.is_null(names))
    kept = [name for name in table.column_names if name != BENCHMARK and not name.startswith(f"{BENCHMARK}:")]
    return completions.select(kept), {name: table.filter(pc.equal(names, name)) for name in own}


def read_documents(table: pa.Table) -> Documents:
    """Read the documents of a benchmark from its rows; those of a point that differ from the first's are none."""
    texts = {key: table.column(key).to_pylist() for key in ("point", "prompt_id", "prompt", "completion")}
    rows: dict[str, list[int]] = {}
    for row, point in enumerate(texts["point"]):
        rows.setdefault(point, []).append(row)
    first = next(iter(rows.values()))
    ids = [texts["prompt_id"][row] for row in first]
    rows = {point: own for point, own in rows.items() if [texts["prompt_id"][row] for row in own] == ids}
    own = [name for name in table.column_names if name.startswith(f"{BENCHMARK}:")]
    own = [name for name in own if table.column(name).null_count < len(table)]
    values = {name.removeprefix(f"{BENCHMARK}:"): table.column(name).to_numpy() for name in own}
    return Documents(
        tuple(ids),
        tuple(texts["prompt"][row] for row in first),
        {point: tuple(texts["completion"][row] for row in own) for point, own in rows.items()},
        {point: {label: parts[own] for label, parts in values.items()} for point, own in rows.items()},
    )


def documents_of(outcomes: Mapping[str, Outcome]) -> Documents:
    """Return the documents of a benchmark from what it said of each point."""
    first = next(iter(outcomes.values())).documents
    labels = dict.fromkeys(label for outcome in outcomes.values() for own in outcome.documents for label in own.parts)
    return Documents(
        tuple(own.id for own in first),
        tuple(own.prompt for own in first),
        {point: tuple(own.answer for own in outcome.documents) for point, outcome in outcomes.items()},
        {
            point: {
                label: np.array([own.parts.get(label, np.nan) for own in outcome.documents])
                for label in labels
                if any(label in own.parts for own in outcome.documents)
            }
            for point, outcome in outcomes.items()
        },
    )
