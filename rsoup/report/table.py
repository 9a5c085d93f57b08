"""Read a CSV of points.

Columns: ``id``, ``kind`` (base, expert, soup, morl, ensemble, mod, checkpoint) or ``method``, ``lambda`` (weight of the
second expert) or ``weight:EXPERT`` for each, ``mu`` (weight of the second reward in a MORL training) or ``mu:REWARD``
for each, ``seed``, ``step`` (only the ``final`` one of a training counts). Rewards are the columns ``score:REWARD``, or
pairs such as ``reward1_name`` and ``reward1``, or else every other column; ``stderr:REWARD`` or ``REWARD_stderr`` is
a standard error. Cells are parted by commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rsoup.errors import ResultsError, did_you_mean
from rsoup.evaluation.results import Kind
from rsoup.files import sha256_file
from rsoup.report.measured import Measured, Source
from rsoup.report.plain import LARGEST, PlainPoint, measured_from, require_path

KINDS: dict[str, Kind] = {
    "base": "base",
    "init": "base",
    "expert": "expert",
    "soup": "soup",
    "rs": "soup",
    "morl": "morl",
    "ensemble": "ensemble",
    "mod": "mod",
    "checkpoint": "checkpoint",
}
LAMBDAS = ("lambda", "lambda_paper", "lam")
PREFIXED = ("weight:", "mu:", "stderr:", "low:", "high:")
DESCRIBING = {
    "id",
    "kind",
    "method",
    "mu",
    "seed",
    "step",
    "dataset",
    "n",
    "lambda_readme",
    "on_front",
    "front_probability",
    *LAMBDAS,
}

_DESCRIBES = re.compile(r"λ|(?P<word>weights?|mu|stderr)[ _.-]+(?P<rest>.+)", re.IGNORECASE)
_COMMA = re.compile(r"^([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)$")

Row = dict[str, str]


def read_table(path: Path, objectives: Mapping[str, str], where: Mapping[str, str]) -> Measured:
    """Read the rows of a CSV whose columns hold the values ``where`` asks for."""
    rows = _chosen(path, _rows(path), where)
    final = [(number, row) for number, row in rows if row.get("step", "") in ("", "final")]
    notes: tuple[str, ...] = ()
    if not final:
        raise ResultsError(
            f"{path}: every row is a step on the way of a training.", "Mark the last one of each with step final."
        )
    if len(final) < len(rows):
        notes = (f"Rows left out as steps on the way of a training: {len(rows) - len(final)}.",)
    names = _reward_columns(path, final, objectives)
    points = [_point(f"{path}: row {number}", row, names) for number, row in final]
    if not objectives:
        objectives = {name: name for name in names}
    if 0 < sum(len(point.stderr) == len(names) for point in points) < len(points):
        notes += ("Some points have no standard error: those of the others are left out.",)
    if "kind" not in rows[0][1] and "method" not in rows[0][1]:
        notes += ("The file has no column kind: rows without lambda or mu are taken for soups of unknown weights.",)
    return measured_from(points, objectives, Source(str(path), sha256_file(path), dict(where)), notes)


def _rows(path: Path) -> list[tuple[int, Row]]:
    """Return the rows with their line numbers; refuse a row that is longer or shorter than the header."""
    text = require_path(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), restkey="", restval=None, strict=True, delimiter=delimiter)
    rows: list[tuple[int, Row]] = []
    _check_header(path, [name.strip() for name in reader.fieldnames or ()])
    try:
        for row in reader:
            if "" in row or None in row.values():
                raise ResultsError(
                    f"{path}: row {reader.line_num}: has not as many cells as the header.", "Is the file whole?"
                )
            cells = {name.strip(): cell.strip() for name, cell in row.items()}
            if delimiter == ";":  # where cells are parted so, numbers may have a comma for their point
                cells = {name: _COMMA.sub(r"\1.\2", cell) for name, cell in cells.items()}
            rows.append((reader.line_num, cells))
    except csv.Error as problem:
        raise ResultsError(
            f"{path}: row {reader.line_num + 1}: is not CSV ({problem}).", "Is the file whole?"
        ) from problem
    if not rows:
        raise ResultsError(f"{path}: holds no points.", "Give a CSV with a header and one row for each point.")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    """Refuse a header with a name twice, or with a name that is nearly one with a meaning."""
    for name in header:
        if header.count(name) > 1:
            raise ResultsError(f"{path}: has two columns {name!r}.", "Give each a name of its own.")
        if name not in DESCRIBING and name.lower() in DESCRIBING:
            raise ResultsError(f"{path}: the column {name!r} is no reward.", f"Write {name.lower()}.")


def _chosen(path: Path, rows: list[tuple[int, Row]], where: Mapping[str, str]) -> list[tuple[int, Row]]:
    for column, value in where.items():
        if column not in rows[0][1]:
            raise ResultsError(f"{path}: has no column {column!r}.", did_you_mean(column, rows[0][1]))
        known = dict.fromkeys(row[column] for _, row in rows)
        if value not in known:
            raise ResultsError(f"{path}: no row has {column} {value!r}.", did_you_mean(value, known))
        rows = [(number, row) for number, row in rows if row[column] == value]
    return rows


def _reward_columns(path: Path, rows: list[tuple[int, Row]], objectives: Mapping[str, str]) -> dict[str, str]:
    """Return reward name -> column, or with objectives every label they may speak of."""
    header = list(rows[0][1])
    pairs = [name for name in header if name.endswith("_name") and name.removesuffix("_name") in header]
    if pairs:
        named = [_only(path, rows, name) for name in pairs]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ResultsError(f"{path}: has two rewards {twice!r}.", "Give each a name of its own.")
        return {name: pair.removesuffix("_name") for name, pair in zip(named, pairs, strict=True)}
    scores = {name.removeprefix("score:"): name for name in header if name.startswith("score:")}
    others = {name: name for name in header if name not in DESCRIBING and not name.startswith(PREFIXED)}
    others = {name: name for name in others if name.removesuffix("_stderr") == name or name[:-7] not in others}
    names = scores or others
    if not (scores or objectives):
        _check_rewards(path, others)
    if objectives:
        names = {label: column for label, column in (names | others).items() if _is_number(rows[0][1][column])}
    if not names:
        raise ResultsError(f"{path}: has no column of rewards.", "Name such a column score:REWARD.")
    return names


def _check_rewards(path: Path, names: Iterable[str]) -> None:
    """Refuse to take a column for a reward whose name says that it describes the point."""
    for name in names:
        found = _DESCRIBES.fullmatch(name)
        if found:
            meant = "lambda" if found["word"] is None else f"{found['word'].lower().rstrip('s')}:{found['rest']}"
            raise ResultsError(
                f"{path}: the column {name!r} does not look like a reward.",
                f"Write {meant}; if it is a reward, write score:{name}, and score: before the others too.",
            )


def _only(path: Path, rows: list[tuple[int, Row]], column: str) -> str:
    """Return the one reward name in a column of names."""
    names = dict.fromkeys(row[column] for _, row in rows)
    if len(names) > 1:
        key = "dataset" if "dataset" in rows[0][1] else column
        choices = list(dict.fromkeys(row[key] for _, row in rows))
        raise ResultsError(
            f"{path}: holds points of different rewards in {column}: {', '.join(names)}.",
            f"Choose rows that can be compared: --where {key}={choices[0]} (or {', '.join(choices[1:])}).",
        )
    return next(iter(names))


def _point(where: str, row: Row, names: Mapping[str, str]) -> PlainPoint:
    lam = next((_number(where, name, row[name]) for name in LAMBDAS if row.get(name)), None)
    weights = _numbers(where, row, "weight:")
    mus = _numbers(where, row, "mu:")
    mu = _number(where, "mu", row["mu"]) if row.get("mu") else None
    for column, value in {"lambda": lam, "mu": mu, **{f"mu:{name}": value for name, value in mus.items()}}.items():
        _check_share(where, column, value)
    return PlainPoint(
        where=where,
        kind=_kind(where, row, trained=bool(mus) or mu is not None),
        values={name: _number(where, column, row[column]) for name, column in names.items()},
        stderr=_errors(where, row, names),
        id=row.get("id") or None,
        lam=lam,
        weights=weights,
        mu=mus or (None if mu is None else (1 - mu, mu)),
        seed=row.get("seed", ""),
    )


def _check_share(where: str, column: str, value: float | None) -> None:
    """Refuse what is a percentage, or no weight at all; a mix may go beyond its experts, a training may not."""
    least, most = (-10.0, 10.0) if column == "lambda" else (0.0, math.inf if ":" in column else 1.0)
    if value is not None and not least <= value <= most:
        raise ResultsError(f"{where}: {column} is {value:g}, no weight.", "Write weights as shares from 0 to 1.")


def _kind(where: str, row: Row, *, trained: bool) -> Kind:
    word = row.get("kind", row.get("method"))
    if word is None:
        return "morl" if trained else "soup"
    if word.lower() not in KINDS:
        raise ResultsError(f"{where}: {word!r} is no kind of point.", did_you_mean(word.lower(), KINDS))
    return KINDS[word.lower()]


def _numbers(where: str, row: Row, prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): _number(where, name, cell)
        for name, cell in row.items()
        if name.startswith(prefix) and cell
    }


def _errors(where: str, row: Row, names: Mapping[str, str]) -> dict[str, float]:
    """Return the standard errors that stand beside the scores."""
    columns = {name: (f"stderr:{name}", f"{column}_stderr") for name, column in names.items()}
    found = {name: next((c for c in given if row.get(c)), None) for name, given in columns.items()}
    errors = {name: _number(where, column, row[column]) for name, column in found.items() if column}
    for name, error in errors.items():
        if error < 0:
            raise ResultsError(f"{where}: the standard error of {name} is {error:g}.", "It cannot be negative.")
    return errors


def _number(where: str, column: str, cell: str) -> float:
    if not _is_number(cell):
        raise ResultsError(
            f"{where}: {column} is {cell!r}, not a number.",
            "Correct the cell; if the column is no reward, name those that are: --objective NAME=COLUMN.",
        )
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= LARGEST
    except ValueError:
        return False
