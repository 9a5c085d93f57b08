"""What the columns of a CSV of points stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from rsoup.errors import ResultsError
from rsoup.report.inputs.plain import is_number, labels_of, unknown_label

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

MEANT = {"λ": "lambda", "alpha": "lambda", "weight": "lambda, or weight:EXPERT for each", "μ": "mu"}
NEARLY_WRITTEN = ("lambda", "kind", "method", "seed", "step", "dataset")

_DESCRIBES = re.compile(r"(?P<word>weights?|mu|stderr)[ _.-]+(?P<rest>.+)", re.IGNORECASE)
_SPREAD = re.compile(r"(?P<of>.+?)[ _.-]?(?:std|sd|se|sem|std_?err(?:or)?|error)", re.IGNORECASE)

Row = dict[str, str]


def check_header(path: Path, header: list[str]) -> None:
    """Refuse a header with a name twice, or with a name that is nearly one with a meaning."""
    for name in filter(None, header):
        if header.count(name) > 1:
            raise ResultsError(f"{path}: has two columns {name!r}.", "Give each a name of its own.")
        if name not in DESCRIBING and name.lower() in DESCRIBING:
            raise ResultsError(f"{path}: the column {name!r} is no reward.", f"Write {name.lower()}.")


def reward_columns(path: Path, rows: list[tuple[int, Row]], objectives: Mapping[str, str]) -> dict[str, str]:
    """Return reward name -> column: what the file says is a reward, whatever the objectives make of it."""
    header = list(rows[0][1])
    pairs = [name for name in header if name.endswith("_name") and name.removesuffix("_name") in header]
    if pairs:
        unnamed = [name for name in header if f"{name}_name" not in pairs and _bare(f"{name}_name") == _bare(pairs[0])]
        if unnamed:
            raise ResultsError(f"{path}: the column {unnamed[0]!r} has no column {unnamed[0]}_name.", "Add it.")
        named = [_only(path, rows, name) for name in pairs]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ResultsError(f"{path}: has two rewards {twice!r}.", "Give each a name of its own.")
        return {name: pair.removesuffix("_name") for name, pair in zip(named, pairs, strict=True)}
    scores = {name.removeprefix("score:"): name for name in header if name.startswith("score:")}
    others = {name: name for name in header if name not in DESCRIBING and not name.startswith(PREFIXED)}
    others = {name: name for name in others if name.removesuffix("_stderr") == name or name[:-7] not in others}
    if not (scores or objectives):
        for name in others:
            _check_reward(path, name, list(others))
    if not (scores or others):
        raise ResultsError(f"{path}: has no column of rewards.", "Name such a column score:REWARD.")
    return scores | others if objectives else scores or others


def _check_reward(path: Path, name: str, others: list[str]) -> None:
    """Refuse to take a column for a reward whose name says that it describes the point, or another column."""
    describes, spread = _DESCRIBES.fullmatch(name), _SPREAD.fullmatch(name)
    near = get_close_matches(name.lower(), NEARLY_WRITTEN, n=1, cutoff=0.8)
    if describes:
        meant = f"{describes['word'].lower().rstrip('s')}:{describes['rest']}"
    elif name.lower() in MEANT:
        meant = MEANT[name.lower()]
    elif spread and spread["of"] in others:
        meant = f"{spread['of']}_stderr, if these are standard errors, or leave it out"
    elif near:
        meant = near[0]
    else:
        return
    raise ResultsError(
        f"{path}: the column {name!r} does not look like a reward.",
        f"Write {meant}; if it is a reward, write score:{name}, and score: before the others too.",
    )


def labels(
    path: Path, rows: list[tuple[int, Row]], own: Mapping[str, str], objectives: Mapping[str, str]
) -> dict[str, str]:
    """Return label -> column of the labels that objectives speak of, in the order of the file."""
    used: set[str] = set()
    for expression in objectives.values():
        labels = labels_of(expression, own)
        if not labels:
            numeric = [name for name, column in own.items() if is_number(rows[0][1][column])]
            raise unknown_label(str(path), expression, numeric)
        used.update(labels)
    return {name: column for name, column in own.items() if name in used}


def _bare(name: str) -> str:
    """Return a name without its digits: those of reward1 and reward2 are the same."""
    return re.sub(r"\d", "", name)


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
