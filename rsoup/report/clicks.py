"""Choices that were made by looking at pairs of answers on a page, in the file that the page exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rsoup.errors import ResultsError, reason_of
from rsoup.evaluation.results import Record
from rsoup.pareto.indicators import scaled
from rsoup.pareto.looking import Preferred, preferred
from rsoup.report.measured import Measured

LIKED = {"left": 1.0, "right": 0.0, "tie": 0.5}
AGAIN = "Export the choices again from the page of this report."


class Click(Record):
    """One choice: the row of the prompt, the points whose answers stood left and right, and what was liked better."""

    prompt: Annotated[int, Field(ge=0)]
    left: str
    right: str
    chosen: Literal["left", "right", "tie", "skip"]


class Clicks(Record):
    """The file: what the answers were made of, and the choices in order."""

    schema_number: Annotated[Literal[1], Field(alias="schema")]
    rewards: list[str]
    prompts: str | None = Field(description="sha256 of the prompts")
    seed: int | None
    adapters: dict[str, str | None] = Field(description="sha256 of each adapter, by name")
    choices: list[Click]


def read_clicks(path: Path) -> Clicks:
    """Read a file of choices; refuse whatever a page did not write."""
    try:
        return Clicks.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise ResultsError(f"--choices {path}: cannot be read ({reason_of(problem)}).", "Check the path.") from problem
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        where = ".".join(map(str, error["loc"]))
        raise ResultsError(f"--choices {path}: {where}: {error['msg']}.", AGAIN) from problem
    except ValueError as problem:
        raise ResultsError(f"--choices {path}: is not a file of choices.", AGAIN) from problem


def preference_of(clicks: Clicks, gains: Measured, candidates: list[int]) -> Preferred:
    """Return what the choices say of the candidates, rows of ``gains``; refuse choices made on other answers."""
    _refuse_others(clicks, gains)
    rows = {gains.models[row].id: place for place, row in enumerate(candidates)}
    told = [click for click in clicks.choices if click.chosen != "skip"]
    for click in told:
        for name in (click.left, click.right):
            if name not in rows:
                raise ResultsError(f"--choices: {name!r} is no mix of these results.", AGAIN)
    shares = scaled(gains.scores, gains.scores.min(axis=0), gains.scores.max(axis=0))[candidates]
    pairs = [(rows[click.left], rows[click.right]) for click in told]
    return preferred(shares, pairs, [LIKED[click.chosen] for click in told])


def as_measured(mu: Mapping[str, float], gains: Measured) -> dict[str, float]:
    """Return the preference on scores as measured that means the same as ``mu`` on scores scaled to 0-1."""
    spans = dict(zip(gains.rewards, gains.scores.max(axis=0) - gains.scores.min(axis=0), strict=True))
    values = {name: weight / float(spans[name]) for name, weight in mu.items() if spans[name] > 0}
    whole = sum(values.values())
    return {name: values.get(name, 0.0) / whole if whole else 0.0 for name in mu}


def _refuse_others(clicks: Clicks, gains: Measured) -> None:
    about = gains.sources[0].about
    own: dict[str, Any] = {"prompts": (about.get("prompts") or {}).get("sha256"), "seed": about.get("seed")}
    theirs: dict[str, Any] = {"prompts": clicks.prompts, "seed": clicks.seed}
    adapters: Mapping[str, str | None] = about.get("adapters") or {}
    for name in sorted(adapters.keys() & clicks.adapters.keys()):
        own[f"adapter {name}"], theirs[f"adapter {name}"] = adapters[name], clicks.adapters[name]
    if list(clicks.rewards) != list(gains.rewards):
        ours, found = ", ".join(gains.rewards), ", ".join(clicks.rewards)
        raise ResultsError(f"--choices: are on {found}; this report is on {ours}.", AGAIN)
    for what, value in own.items():
        if value != theirs[what]:
            raise ResultsError(f"--choices: were made on answers of another evaluation (other {what}).", AGAIN)
