"""Read the lines that the original evaluation prints: ``results[ 0.3 ] = [{'LABEL_0': 1.28, 'n': 'grs'}, ...]``."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from rsoup.errors import ResultsError
from rsoup.files import sha256_file
from rsoup.harness.metrics import LARGEST
from rsoup.report.inputs.plain import PlainPoint, as_weight, doubtful, lowered, measured_from, require_path
from rsoup.report.measured import Measured, Source

LINE = re.compile(r"^\s*(?:results|d)\[\s*([-+0-9.eE]+)\s*\]\s*=\s*(.*?)\s*$")

NEARLY = re.compile(r"\b(?:results|d)\[.*\]\s*=\s*\[\s*\{")
"""A line that was meant to be one."""
_SCALAR = re.compile(r"\b(?:(?:np|numpy)\.float\d+|tensor)\(([-+.\deE]+)[^()]*\)")  # as numpy and torch print a number
_MISSING = re.compile(r"\b(?:nan|inf)\b")


def read_printed(path: Path, objectives: Mapping[str, str], minimize: Collection[str] = ()) -> Measured:
    """Read every printed line of ``path``; its reward models are named by ``n``, their labels are MODEL.LABEL."""
    points = []
    for number, line in enumerate(require_path(path).splitlines(), start=1):
        match = LINE.match(line)
        if match:
            points.append(_point(f"{path}: line {number}", match[1], match[2]))
        elif NEARLY.search(line):
            raise ResultsError(
                f"{path}: line {number}: is not read: {line.strip()[:40]}...",
                "Write results[ 0.5 ] = [...] with a number, from the start of the line.",
            )
    if not points:
        raise ResultsError(
            f"{path}: holds no line like results[ 0.3 ] = [{{'LABEL_0': 1.28, 'n': 'grs'}}].",
            "Give results.json of rsoup eval, a .csv of points, or a file with such lines.",
        )
    if not objectives:
        labels = list(points[0].values)
        raise ResultsError(
            f"{path}: does not say which of its labels are rewards: {', '.join(labels)}.",
            f"Name each reward: --objective r1={labels[0]}, or a difference: --objective r2=LABEL1-LABEL2.",
        )
    minimized = lowered(objectives, list(points[0].values), {}, minimize)
    notes = doubtful(objectives, list(points[0].values), {}, minimized)
    return measured_from(points, objectives, (Source(str(path), sha256_file(path)),), notes, minimized)


def _point(where: str, lam: str, text: str) -> PlainPoint:
    try:
        text = _SCALAR.sub(r"\1", text)
        entries = ast.literal_eval(text)
        position = float(lam)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as problem:
        missing = _MISSING.search(text)
        if missing:
            raise ResultsError(f"{where}: holds {missing[0]}, which is no number.", "Correct the line.") from problem
        raise ResultsError(f"{where}: is cut short or no list of numbers.", "Copy the whole line.") from problem
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ResultsError(f"{where}: is not a list of one dictionary for each reward model.", "Copy the whole line.")
    position = as_weight(where, "lambda", position)
    values: dict[str, float] = {}
    for place, entry in enumerate(entries):
        model = entry.get("n", place)
        for label, value in entry.items():
            if label == "n":
                continue
            if f"{model}.{label}" in values:
                raise ResultsError(
                    f"{where}: {model}.{label} is there twice.", "Give each reward model a name of its own under 'n'."
                )
            values[f"{model}.{label}"] = _number(f"{where}: {model}.{label}", value)
    return PlainPoint(where, "soup", values, lam=position)


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ResultsError(f"{where} is {value!r}, not a number.", "Correct the line.")
    return float(value)
