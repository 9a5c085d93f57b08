"""The models that a report chose."""

from __future__ import annotations

import math
from pathlib import Path

from rsoup import mixing
from rsoup.errors import ResultsError
from rsoup.mixing.checkpoints import RULES
from rsoup.report.schema import Choice, Report


def chosen_soups(report: Report, folder: Path) -> dict[Path, mixing.Soup]:
    """Mix the soup of every choice of a report; return them by the places in ``folder`` where they belong."""
    if not report.choices:
        raise ResultsError(
            "--export: nothing is chosen.",
            "Add --prefer NAME=WEIGHT,..., --at-least NAME=VALUE, --at-most NAME=VALUE, --choices FILE or --knee.",
        )
    there = next((folder / choice.folder for choice in report.choices if (folder / choice.folder).exists()), None)
    if there is not None:
        raise ResultsError(f"--export: {there} is already there.", "Give another folder, or delete it.")
    chosen = {choice.folder: choice for choice in report.choices}
    other = next((choice for choice in report.choices if choice.weights != chosen[choice.folder].weights), None)
    if other is not None:
        raise ResultsError(f"--export: two mixes would be {other.folder}.", "Choose them one by one, into two folders.")
    return {folder / name: _soup(report, choice) for name, choice in chosen.items()}


def _soup(report: Report, choice: Choice) -> mixing.Soup:
    if report.method in RULES:
        raise ResultsError(
            "--export: writes adapters, and the chosen mix is one of whole models.", "Run the printed command."
        )
    used = {name: weight for name, weight in choice.weights.items() if weight}
    unknown = [name for name in used if name not in report.adapters]
    if unknown or not used:
        which = ", ".join(unknown) or f"of {choice.nearest}"
        raise ResultsError(
            f"--export: the input does not say in which folder the adapter {which} is.",
            "Give results.json of rsoup eval, which does, or run the printed command with the adapters' folders.",
        )
    rest = 1 - math.fsum(used.values())
    return mixing.mix(
        [report.adapters[name] for name in used],
        list(used.values()),
        method=report.method or "factors",
        base_weight=rest if report.method is not None and abs(rest) > 1e-6 else 0.0,  # as in the command
        allow_extrapolation=True,  # the point was measured, so its weights and starts were allowed
        allow_different_starts=True,
    )
