"""Pictures for a paper."""

from __future__ import annotations

from pathlib import Path

from rsoup.report.pictures.along import draw_line, on_line
from rsoup.report.pictures.costs import draw_costs, has_costs
from rsoup.report.pictures.front import draw_front
from rsoup.report.pictures.polygons import draw_radar, draw_ternary, triangle
from rsoup.report.pictures.style import FORMATS
from rsoup.report.schema import Report

__all__ = ["PICTURE_FILES", "draw_pictures"]

STEMS = ("front", "lambda", "cost", "radar", "ternary")
PICTURE_FILES = frozenset(f"{stem}.{suffix}" for stem in STEMS for suffix in FORMATS)


def draw_pictures(report: Report, folder: Path) -> None:
    """Draw every picture that fits the number of rewards into ``folder``."""
    if len(report.rewards) > 1:
        draw_front(report, folder / "front")
    if on_line(report):
        draw_line(report, folder / "lambda")
    if has_costs(report):
        draw_costs(report, folder / "cost")
    if len(report.rewards) > 2:
        draw_radar(report, folder / "radar")
    if len(report.rewards) == 3 and triangle(report)[1]:
        draw_ternary(report, folder / "ternary")
