"""Render the page: one HTML file that holds its data, style and script and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from rsoup.evaluation.results import Floats, Samples
from rsoup.report.schema import Report
from rsoup.tasks.plain import as_text

SCRIPTS = (
    "core.js",
    "plot.js",
    "stats.js",
    "limits.js",
    "front.js",
    "move.js",
    "parallel.js",
    "choose.js",
    "texts.js",
    "compare.js",
    "looking.js",
    "facts.js",
    "costs.js",
    "main.js",
)
TEXT_BYTES = 5_000_000  # of prompts, their columns and completions on a page
CELL_LENGTH = 400  # characters of a column's value on a page


def render_page(report: Report, texts: Samples | None) -> str:
    """Return the page of a report; prompts beyond what keeps it small are left out, and the page says so."""
    data = {"report": report.model_dump(mode="json", by_alias=True), "texts": _texts(texts)}
    style = _part("style.css")
    script = '(() => {\n"use strict";\n' + "\n".join(_part(name) for name in SCRIPTS) + "\n})();\n"
    parts = {
        "policy": _policy(style, script),
        "title": html.escape(f"Pareto report: {', '.join(report.rewards)}"),
        "style": style,
        "data": _json_in_html(data),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _part("page.html"))


def _part(name: str) -> str:
    return (files("rsoup.report") / "page" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allow this style and this script by their hashes, and nothing else: no request, no other script."""
    own = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return f"default-src 'none'; {own}; img-src data:; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json_in_html(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the element it stands in, whatever a completion holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _texts(texts: Samples | None) -> dict[str, Any] | None:
    """Return as many prompts, with every point's completion and scores, as fit the page."""
    if texts is None:
        return None
    columns = _columns(texts)
    kept = _fitting(texts, columns)
    rewards = next(iter(texts.points.values())).scores
    return {
        "total": len(texts.prompts),
        "prompts": list(texts.prompts[:kept]),
        "columns": {name: values[:kept] for name, values in columns.items()},
        "ranges": {
            name: [
                round(float(min(np.nanmin(own.scores[name]) for own in texts.points.values())), 4),
                round(float(max(np.nanmax(own.scores[name]) for own in texts.points.values())), 4),
            ]
            for name in rewards
        },
        "points": {
            point_id: {
                "completions": list(own.completions[:kept]),
                "scores": {name: _listed(own.scores[name][:kept]) for name in rewards},
            }
            for point_id, own in texts.points.items()
        },
    }


def _columns(texts: Samples) -> dict[str, list[str]]:
    """Return the columns of the data as texts, long ones cut; those that only repeat the prompts are left out."""
    columns = {name: [_cut(as_text(value)) for value in values] for name, values in texts.columns.items()}
    prompts = [_cut(prompt) for prompt in texts.prompts]
    return {name: values for name, values in columns.items() if values != prompts}


def _cut(text: str) -> str:
    return text if len(text) <= CELL_LENGTH else f"{text[:CELL_LENGTH]}…"


def _listed(scores: Floats) -> list[float | None]:
    """Return scores for the page, None where a reward does not apply."""
    return [None if np.isnan(score) else score for score in scores.round(4).tolist()]


def _fitting(texts: Samples, columns: Mapping[str, list[str]]) -> int:
    """Return how many prompts fit; at least one."""
    size = 0
    for row, prompt in enumerate(texts.prompts):
        size += len(prompt.encode()) + sum(len(values[row].encode()) for values in columns.values())
        size += sum(len(own.completions[row].encode()) + 10 * (1 + len(own.scores)) for own in texts.points.values())
        if size > TEXT_BYTES and row > 0:
            return row
    return len(texts.prompts)
