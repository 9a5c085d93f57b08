"""Read a CSV of points.

Columns: ``id`` (or words under ``model`` or ``name``), ``kind`` (base, expert, soup, morl, ensemble, mod, checkpoint,
model) or ``method``, ``lambda`` (weight of the second expert) or ``weight:EXPERT`` for each, ``mu`` (weight of the
file's second reward in a MORL training) or ``mu:REWARD`` for each, ``seed``, ``step`` (only the ``final`` one of a
training counts). Rewards are the columns ``score:REWARD``, or pairs such as ``reward1_name`` and ``reward1``, or else
every other column; ``stderr:REWARD`` or ``REWARD_stderr`` is a standard error. Lower scores of a reward are better if
its column is marked ``REWARD (min)``, ``REWARD:min`` or ``REWARD ↓``; ``(max)``, ``:max`` and ``↑`` say what no mark
means. Cells are parted by commas, semicolons or tabs; columns without a name are left out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from rsoup.errors import ResultsError, did_you_mean
from rsoup.evaluation.results import Kind
from rsoup.files import sha256_file
from rsoup.recipe import Direction
from rsoup.report.inputs.columns import (
    LAMBDAS,
    Row,
    check_header,
    error_columns,
    is_named,
    labels,
    reward_columns,
    split_way,
    ways_of,
)
from rsoup.report.inputs.plain import (
    PlainPoint,
    as_weight,
    doubtful,
    in_file_order,
    is_number,
    lowered,
    measured_from,
    require_path,
)
from rsoup.report.measured import Measured, Source

KINDS: dict[str, Kind] = {
    "base": "base",
    "init": "base",
    "expert": "expert",
    "soup": "soup",
    "rs": "soup",
    "morl": "morl",
    "ensemble": "ensemble",
    "mod": "mod",
    "mix": "mix",
    "checkpoint": "checkpoint",
    "model": "model",
}
_SEPARATOR = re.compile(r"sep=(.)\r?\n")
_QUOTED = re.compile(r'"[^"]*"')
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_COMMA = re.compile(r"^([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)$")


def read_table(
    path: Path, objectives: Mapping[str, str], where: Mapping[str, str], minimize: Collection[str] = ()
) -> Measured:
    """Read the rows of a CSV whose columns hold the values ``where`` asks for."""
    rows, ways = _rows(path)
    rows = _chosen(path, rows, where)
    final = [(number, row) for number, row in rows if row.get("step", "") in ("", "final")]
    notes: tuple[str, ...] = ()
    if not final:
        raise ResultsError(
            f"{path}: every row is a step on the way of a training.", "Mark the last one of each with step final."
        )
    if len(final) < len(rows):
        notes = (f"Rows left out as steps on the way of a training: {len(rows) - len(final)}.",)
    own = reward_columns(path, final, objectives)
    names = labels(path, final, own, objectives) if objectives else own
    objectives = objectives or {name: name for name in names}
    trained_on = tuple(objectives[name] for name in in_file_order(objectives, list(names)))
    points = [_point(f"{path}: row {number}", row, names, trained_on) for number, row in final]
    if 0 < sum(len(point.stderr) for point in points) < len(points) * len(names):
        notes += ("Some scores have no standard error.",)
    kindless = "kind" not in rows[0][1] and "method" not in rows[0][1]
    if kindless and any(point.lam is None and point.mu is None and not point.weights for point in points):
        notes += ("The file has no column kind: rows without lambda or mu are taken for soups of unknown weights.",)
    by_label = {label: ways[column] for label, column in names.items() if column in ways}
    minimized = lowered(objectives, list(names), by_label, minimize)
    notes += doubtful(objectives, list(names), by_label, minimized)
    return measured_from(points, objectives, (Source(str(path), sha256_file(path), dict(where)),), notes, minimized)


def read_hints(path: Path, rewards: tuple[str, ...]) -> list[PlainPoint]:
    """Read what the rows of a CSV say that models are, by their ids; scores are left alone."""
    rows, _ = _rows(path)
    if not all(row.get("id") for _, row in rows):
        raise ResultsError(f"{path}: beside results of lm-eval a CSV says what each model is.", "Give a column id.")
    return [_point(f"{path}: row {number}", row, {}, rewards) for number, row in rows]


def _rows(path: Path) -> tuple[list[tuple[int, Row]], dict[str, Direction]]:
    """Return the rows with their line numbers, and which way columns are better that say so.

    Refuse a row that is longer or shorter than the header.
    """
    text = require_path(path)
    told = _SEPARATOR.match(text)  # a first line that tells Excel the delimiter
    text = text[told.end() :] if told else text
    delimiter = told[1] if told else max(",;\t", key=_QUOTED.sub("", text.partition("\n")[0]).count)
    reader = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
    rows: list[tuple[int, Row]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        ways = ways_of(path, header)
        header = [split_way(name)[0] for name in header]
        check_header(path, header)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(header):
                raise ResultsError(
                    f"{path}: row {reader.line_num}: has {len(cells)} cells, the header has {len(header)}.",
                    "Is the file whole?",
                )
            row = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if is_named(name)}
            rows.append((reader.line_num, row))
    except csv.Error as problem:
        number = 1 + (rows[-1][0] if rows else 1)
        raise ResultsError(f"{path}: row {number}: is not CSV ({problem}).", "Is the file whole?") from problem
    if not rows:
        raise ResultsError(f"{path}: holds no points.", "Give a CSV with a header and one row for each point.")
    if delimiter != ",":  # where cells are parted so, numbers may have a comma for their point
        rows = _with_points(path, rows)
    return _with_ids(rows), ways


def _with_points(path: Path, rows: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """Write numbers with a point for their comma; refuse commas of which none tells that they part no thousands."""
    cells = [(number, name, cell) for number, row in rows for name, cell in row.items()]
    odd = next((where for where in cells if _THOUSANDS.fullmatch(where[2])), None)
    sure = any(_COMMA.fullmatch(cell) and not _THOUSANDS.fullmatch(cell) for _, _, cell in cells)
    if odd is not None and (not sure or any("." in cell and is_number(cell) for _, _, cell in cells)):
        number, name, cell = odd
        readings = f"{cell.replace(',', '.')} or {cell.replace(',', '')}"
        raise ResultsError(
            f"{path}: row {number}: {name} is {cell!r}, which may be {readings}.",
            "Write numbers with a point, and nothing between thousands.",
        )
    return [(number, {name: _COMMA.sub(r"\1.\2", cell) for name, cell in row.items()}) for number, row in rows]


def _with_ids(rows: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """Take words under ``model`` or ``name`` for the ids, where no column has these."""
    for name in ("model", "name"):
        if "id" not in rows[0][1] and not all(is_number(row.get(name, "0")) for _, row in rows):
            return [(number, {"id" if key == name else key: cell for key, cell in row.items()}) for number, row in rows]
    return rows


def _chosen(path: Path, rows: list[tuple[int, Row]], where: Mapping[str, str]) -> list[tuple[int, Row]]:
    for column, value in where.items():
        if column not in rows[0][1]:
            raise ResultsError(f"{path}: has no column {column!r}.", did_you_mean(column, rows[0][1]))
        known = dict.fromkeys(row[column] for _, row in rows)
        if value not in known:
            raise ResultsError(f"{path}: no row has {column} {value!r}.", did_you_mean(value, known))
        rows = [(number, row) for number, row in rows if row[column] == value]
    return rows


def _point(where: str, row: Row, names: Mapping[str, str], trained_on: tuple[str, ...]) -> PlainPoint:
    lam = next((as_weight(where, name, _weight(where, name, row[name])) for name in LAMBDAS if row.get(name)), None)
    given = _numbers(where, row, "weight:")
    weights = {name: as_weight(where, f"weight:{name}", weight) for name, weight in given.items()}
    mu = _mu(where, row, trained_on)
    if lam is not None and len(weights) == 2 and abs(max(weights.values()) - max(lam, 1 - lam)) > 0.01:
        told = ", ".join(f"{weight:g}" for weight in weights.values())
        raise ResultsError(f"{where}: lambda is {lam:g} and the weights are {told}.", "Correct one, or leave it out.")
    return PlainPoint(
        where=where,
        kind=_kind(where, row, trained=mu is not None),
        values={name: _number(where, column, row[column]) for name, column in names.items()},
        stderr=_errors(where, row, names),
        id=row.get("id") or None,
        lam=lam,
        weights=weights,
        mu=mu,
        seed=row.get("seed", ""),
    )


def _mu(where: str, row: Row, trained_on: tuple[str, ...]) -> dict[str, float] | None:
    """Return the weights of a MORL training by what it was trained on, in the order of the file."""
    given = _numbers(where, row, "mu:")
    second = _weight(where, "mu", row["mu"]) if row.get("mu") else None
    for name, value in [*given.items(), *([] if second is None else [("", second)])]:
        if value < 0 or (value > 1 and not name):
            column = f"mu:{name}" if name else "mu"
            raise ResultsError(f"{where}: {column} is {value:g}, no weight.", "Write weights as shares from 0 to 1.")
    if second is None or given:
        return given or None
    if len(trained_on) != 2:
        raise ResultsError(
            f"{where}: one mu says nothing about {len(trained_on)} rewards.", "Give a column mu:NAME for each reward."
        )
    return {trained_on[0]: 1 - second, trained_on[1]: second}


def _kind(where: str, row: Row, *, trained: bool) -> Kind:
    word = row.get("kind", row.get("method"))
    if word is None:
        return "morl" if trained else "soup"
    if word.lower() not in KINDS:
        raise ResultsError(f"{where}: {word!r} is no kind of point.", did_you_mean(word.lower(), KINDS))
    return KINDS[word.lower()]


def _numbers(where: str, row: Row, prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): _weight(where, name, cell)
        for name, cell in row.items()
        if name.startswith(prefix) and cell
    }


def _errors(where: str, row: Row, names: Mapping[str, str]) -> dict[str, float]:
    """Return the standard errors that stand beside the scores."""
    columns = {name: error_columns(name, column) for name, column in names.items()}
    found = {name: next((c for c in given if row.get(c)), None) for name, given in columns.items()}
    errors = {name: _number(where, column, row[column]) for name, column in found.items() if column}
    for name, error in errors.items():
        if error < 0:
            raise ResultsError(f"{where}: the standard error of {name} is {error:g}.", "It cannot be negative.")
    return errors


def _weight(where: str, column: str, cell: str) -> float:
    if not is_number(cell):
        raise ResultsError(f"{where}: {column} is {cell!r}, not a number.", "Leave the cell empty where there is none.")
    return float(cell)


def _number(where: str, column: str, cell: str) -> float:
    if not is_number(cell):
        raise ResultsError(
            f"{where}: {column} is {cell!r}, not a number.",
            "Correct the cell; if the column is no reward, name those that are: --objective NAME=COLUMN.",
        )
    return float(cell)
