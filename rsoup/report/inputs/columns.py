"""What the columns of a CSV of points stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from rsoup.errors import ResultsError
from rsoup.recipe import Direction
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
    "index",
    "lambda_readme",
    "on_front",
    "front_probability",
    *LAMBDAS,
}
MEANT = {
    "λ": "lambda",
    "alpha": "lambda",
    "weight": "lambda, or weight:EXPERT for each",
    "μ": "mu",
    "seeds": "seed",
    "steps": "step",
    **dict.fromkeys(("std", "sd", "se", "sem", "stderr", "error"), "REWARD_stderr, if it is a standard error"),
}

_UNNAMED = re.compile(r"|Unnamed: \d+")  # as pandas calls the columns without a name
_PAIR = re.compile(r"reward\w*_name", re.IGNORECASE)
_WEIGHT = re.compile(r"(?P<word>weights?|w|mu|stderr)(?:[ _.-]+(?P<of>.+)|\d+)", re.IGNORECASE)
_SPREAD = re.compile(
    r"(?P<of>.+?)[ _.-]?(?:std|sd|se|sem|std_?err(?:or)?|error|low|high|lower|upper|ci\d*|var|n|count|median|min|max)",
    re.IGNORECASE,
)

_LOWER, _HIGHER = r"min(?:imi[sz]e)?|lower(?: is)? better|↓", r"max(?:imi[sz]e)?|higher(?: is)? better|↑"
_WAY = re.compile(
    rf"(?P<name>.+?)(?: *[(\[](?:(?P<low>{_LOWER})|{_HIGHER})[)\]]|:(?:(?P<min>min)|max)| +(?:(?P<down>↓)|↑))",
    re.IGNORECASE,
)

Row = dict[str, str]


def is_named(name: str) -> bool:
    """Say whether a column has a name of its own."""
    return _UNNAMED.fullmatch(name) is None


def split_way(name: str) -> tuple[str, Direction | None]:
    """Return a column's name without the mark that says which way it is better, and what that says."""
    mark = _WAY.fullmatch(name)
    if mark is None or name.startswith(PREFIXED) or mark["name"] == "score":
        return name, None
    return mark["name"], "minimize" if mark["low"] or mark["min"] or mark["down"] else "maximize"


def ways_of(path: Path, header: list[str]) -> dict[str, Direction]:
    """Return which way the columns of a header are better that say so, by their names without the mark."""
    ways: dict[str, Direction] = {}
    for name in header:
        bare, way = split_way(name)
        if way is None:
            continue
        twins = [other for other in header if split_way(other)[0] == bare]
        if len(twins) > 1:
            raise ResultsError(
                f"{path}: {twins[0]!r} and {twins[1]!r} would be one reward: the mark says which way it is better.",
                "Leave a column out, or give it another name.",
            )
        if bare in DESCRIBING:
            raise ResultsError(f"{path}: the column {name!r} is no reward.", f"Write {bare}.")
        ways[bare] = way
    return ways


def check_header(path: Path, header: list[str]) -> None:
    """Refuse a header with a name twice, or with a name that is nearly one with a meaning."""
    for name in filter(is_named, header):
        if header.count(name) > 1:
            raise ResultsError(f"{path}: has two columns {name!r}.", "Give each a name of its own.")
        if name not in DESCRIBING and name.lower() in DESCRIBING:
            raise ResultsError(f"{path}: the column {name!r} is no reward.", f"Write {name.lower()}.")
        if name in PREFIXED or name == "score:":
            raise ResultsError(f"{path}: the column {name!r} names nothing.", f"Write {name}NAME.")


def error_columns(name: str, column: str) -> tuple[str, ...]:
    """Return the columns in which the standard errors of a reward may stand."""
    return f"stderr:{name}", f"{column}_stderr", f"{name}_stderr", f"{column.removesuffix('_mean')}_stderr"


def reward_columns(path: Path, rows: list[tuple[int, Row]], objectives: Mapping[str, str]) -> dict[str, str]:
    """Return reward name -> column: what the file says is a reward, whatever the objectives make of it."""
    header = list(rows[0][1])
    pairs = [name for name in header if _PAIR.fullmatch(name) and name.removesuffix("_name") in header]
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
    others = {name: name for name in header if name not in DESCRIBING and not name.startswith((*PREFIXED, "score:"))}
    errors = {error for name, column in (scores | others).items() for error in error_columns(name, column)}
    scores = {name: column for name, column in scores.items() if column not in errors}
    others = {name: column for name, column in others.items() if column not in errors}
    for name in others if not (scores or objectives) else set(others) - set(objectives.values()):
        _check_name(path, name, header, scores or others, alone=not (scores or objectives))
    if not (scores or others):
        raise ResultsError(f"{path}: has no column of rewards.", "Name such a column score:REWARD.")
    return scores | others if objectives else scores or others


def _check_name(path: Path, name: str, header: list[str], rewards: Mapping[str, str], *, alone: bool) -> None:
    """Refuse a column whose name says that it describes the point, or a reward; ``alone``, that it is one itself."""
    weight, spread = _WEIGHT.fullmatch(name), _SPREAD.fullmatch(name)
    placed = any(column in LAMBDAS or column.startswith("weight:") for column in header)
    meant = MEANT.get(name.lower())
    if weight and (weight["of"] is None or weight["of"] in rewards):
        word = weight["word"].lower()
        meant = f"{word if word in ('mu', 'stderr') else 'weight'}:NAME for each"
    elif re.fullmatch(r"lambda[ _]?\d", name, re.IGNORECASE):
        meant = "weight:EXPERT for each"
    elif meant is None and not placed and get_close_matches(name.lower(), LAMBDAS[:1], n=1, cutoff=0.8):
        meant = "lambda"
    elif meant is None and alone and spread and not {spread["of"], f"{spread['of']}_mean"}.isdisjoint(rewards):
        meant = f"{spread['of']}_stderr, if it is a standard error, or leave it out"
    if meant is None or meant in header:
        return
    raise ResultsError(
        f"{path}: the column {name!r} does not look like a reward.",
        f"Write {meant}; if it is a reward, write score:{name}, and score: before the others too."
        if alone
        else f"Write {meant}, or leave the column out.",
    )


def labels(
    path: Path, rows: list[tuple[int, Row]], own: Mapping[str, str], objectives: Mapping[str, str]
) -> dict[str, str]:
    """Return label -> column of the labels that objectives speak of, in the order of the file."""
    used: set[str] = set()
    for expression in objectives.values():
        named = labels_of(expression, own)
        if not named:
            numeric = [name for name, column in own.items() if is_number(rows[0][1][column])]
            raise unknown_label(str(path), expression, numeric)
        used.update(named)
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
