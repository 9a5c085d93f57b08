"""The files an evaluation leaves: results.json (means, standard errors) and samples.parquet (every completion)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rsoup.errors import ResultsError
from rsoup.evaluation.documents import Documents
from rsoup.evaluation.records import (
    SAMPLES_NAME,
    SCHEMA,
    Adapter,
    AdapterKind,
    Base,
    Benchmark,
    Cost,
    Floats,
    Front,
    Generation,
    Kind,
    Point,
    Prompts,
    Record,
    Results,
    Score,
    summarise,
)
from rsoup.evaluation.samples import AGAIN, PointSamples, Samples, check_samples, read_samples_file, write_samples
from rsoup.files import read_json, write_json
from rsoup.locks import locked

RESULTS = "results.json"

__all__ = [
    "RESULTS",
    "Adapter",
    "AdapterKind",
    "Base",
    "Benchmark",
    "Cost",
    "Documents",
    "Floats",
    "Front",
    "Generation",
    "Kind",
    "Point",
    "PointSamples",
    "Prompts",
    "Record",
    "Results",
    "Samples",
    "Score",
    "read_results",
    "read_samples",
    "results_file",
    "summarise",
    "write_results",
]


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

    Refuses points whose means are not those of their samples. Two sweeps that share a folder do not mix their files.
    """
    if results.samples is None:
        raise ResultsError(f"{path}: the results name no samples file.", f"Set samples to {SAMPLES_NAME}.")
    check_samples(path, results, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock", wait=True):
        write_samples(path.parent / results.samples, samples, results.rewards)
        write_json(path, results.as_json())


def read_samples(path: Path, results: Results) -> Samples:
    """Read the samples that belong to ``results`` read from ``path``: one entry per prompt, checked against them."""
    return read_samples_file(results_file(path).parent / (results.samples or SAMPLES_NAME), results)


def results_file(path: Path) -> Path:
    """Return the results file that ``path`` stands for: a file, a folder that holds one, or the folder of a run."""
    if not path.is_dir():
        return path
    places = path / RESULTS, path / "eval" / RESULTS
    return next((place for place in places if place.is_file()), places[0])


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
