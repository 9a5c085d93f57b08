"""Pictures for a paper: the front, and the rewards along lambda."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rsoup.evaluation.results import Kind
from rsoup.report.polygons import draw_radar, draw_ternary, triangle
from rsoup.report.schema import Report, ReportPoint
from rsoup.report.style import CHOSEN, COLUMN_INCHES, FAINT, LOOKS, drawing

LABELLED = 12  # points on a line up to which each carries its lambda
WITH_BARS = 100  # points of one look up to which intervals can be told apart


def draw_pictures(report: Report, folder: Path) -> None:
    """Draw every picture that fits the number of rewards into ``folder``."""
    if len(report.rewards) > 1:
        draw_front(report, folder / "front")
    if _on_line(report):
        draw_line(report, folder / "lambda")
    if len(report.rewards) > 2:
        draw_radar(report, folder / "radar")
    if len(report.rewards) == 3 and triangle(report)[1]:
        draw_ternary(report, folder / "ternary")


def draw_front(report: Report, stem: Path) -> None:
    """Draw the points of every pair of rewards, with intervals, the chord between two experts and the choices."""
    pairs = list(combinations(report.rewards, 2))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    side = COLUMN_INCHES if columns == 1 else 2.4
    with drawing(stem, side * columns, 0.92 * side * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (first, second) in zip(panels, pairs, strict=False):
            _front_panel(panel, report, first, second)
        for panel in panels[len(pairs) :]:
            panel.set_axis_off()
        handles = _legend(report)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4 if columns == 1 else 8))


def draw_line(report: Report, stem: Path) -> None:
    """Draw each reward along lambda against the straight line between the experts."""
    with drawing(stem, COLUMN_INCHES * 1.9, COLUMN_INCHES * 0.85) as figure:
        panels = figure.subplots(1, len(report.rewards), sharex=True, squeeze=False)
        for panel, name in zip(panels[0], report.rewards, strict=True):
            _line_panel(panel, report, name)
        handles = [
            Line2D([], [], color=LOOKS["soup"].colour, marker="o", markersize=3.5, label="soups"),
            Line2D([], [], color=FAINT, linestyle="--", label="line between the experts"),
        ]
        if any(point.kind == "base" for point in report.points):
            handles.append(Line2D([], [], color=LOOKS["base"].colour, linestyle=":", label="base"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _front_panel(panel: Axes, report: Report, first: str, second: str) -> None:
    line = _on_line(report)
    if line and len(report.rewards) == 2:
        ends = [line[0], line[-1]]
        panel.plot(*_coordinates(ends, first, second), color=FAINT, linestyle="--", linewidth=0.9, zorder=1)
        panel.plot(*_coordinates(line, first, second), color=LOOKS["soup"].colour, linewidth=0.9, alpha=0.5, zorder=2)
    for (kind, on_front), group in _alike(report).items():
        _marks(panel, kind, on_front, group, first, second)
    for choice in report.choices:
        point = report.point(choice.nearest)
        panel.plot(*_coordinates([point], first, second), "o", mfc="none", mec=CHOSEN, ms=11, mew=1.3, zorder=6)
    if len(report.rewards) == 2:
        _label(panel, report, first, second)
    panel.set_xlabel(first)
    panel.set_ylabel(second)
    panel.margins(0.1)


def _alike(report: Report) -> dict[tuple[Kind, bool], list[ReportPoint]]:
    """Return the points that look the same together: one kind, all on the front or all beaten."""
    groups: dict[tuple[Kind, bool], list[ReportPoint]] = {}
    for point in report.points:
        groups.setdefault((point.kind, point.on_front), []).append(point)
    return groups


def _marks(panel: Axes, kind: Kind, on_front: bool, points: list[ReportPoint], first: str, second: str) -> None:
    """Draw points of one look, hollow where others beat them, with their 95 % intervals unless there are too many."""
    look = LOOKS[kind]
    x, y = _coordinates(points, first, second)
    across, up = (np.array([point.scores[name].interval or () for point in points]) for name in (first, second))
    if across.size and len(points) <= WITH_BARS:
        for lines, place, ends in ((panel.hlines, y, across), (panel.vlines, x, up)):
            lines(place, ends[:, 0], ends[:, 1], colors=look.colour, linewidths=0.7, alpha=0.45, zorder=2)
    fill = look.colour if on_front else "white"
    size = look.size if len(points) <= WITH_BARS else 0.5 * look.size
    panel.plot(x, y, look.marker, color=look.colour, mfc=fill, ms=size, mew=0.9, zorder=4)


def _label(panel: Axes, report: Report, first: str, second: str) -> None:
    """Write lambda beside soups and names beside the points at the ends of the line."""
    line = _on_line(report)
    left, right = sorted((line[0], line[-1]), key=lambda point: point.scores[first].mean) if line else (None, None)
    for point in line:
        anchor = point.scores[first].mean, point.scores[second].mean
        if point is left:
            panel.annotate(point.id, anchor, (4, 7), textcoords="offset points", fontsize=6.5)
        elif point is right:
            panel.annotate(point.id, anchor, (-4, -12), textcoords="offset points", fontsize=6.5, ha="right")
        elif len(line) <= LABELLED:
            panel.annotate(f"{point.lam:g}", anchor, (4, 4), textcoords="offset points", fontsize=6, color=FAINT)


def _line_panel(panel: Axes, report: Report, name: str) -> None:
    line = _on_line(report)
    lams = np.array([point.lam for point in line], dtype=float)
    means = np.array([point.scores[name].mean for point in line])
    look = LOOKS["soup"]
    intervals = [point.scores[name].interval for point in line]
    bands = np.array([interval for interval in intervals if interval is not None])
    if len(bands) == len(line):
        panel.fill_between(lams, bands[:, 0], bands[:, 1], color=look.colour, alpha=0.15, linewidth=0)
    panel.plot(lams, means, color=look.colour, marker="o", markersize=3.5)
    panel.plot(lams[[0, -1]], means[[0, -1]], color=FAINT, linestyle="--", linewidth=0.9)
    for point in report.points:
        if point.kind == "base":
            panel.axhline(point.scores[name].mean, color=LOOKS["base"].colour, linestyle=":", linewidth=0.9)
    panel.set_xlabel("lambda")
    panel.set_ylabel(name)


def _on_line(report: Report) -> list[ReportPoint]:
    """Return the soups and experts between lambda 0 and 1, in order; none unless both ends were measured."""
    line = [p for p in report.points if p.kind in ("soup", "expert") and p.lam is not None and 0 <= p.lam <= 1]
    line.sort(key=lambda point: point.lam or 0.0)
    return line if line and line[0].lam == 0 and line[-1].lam == 1 else []


def _coordinates(points: Sequence[ReportPoint], first: str, second: str) -> tuple[list[float], list[float]]:
    return [point.scores[first].mean for point in points], [point.scores[second].mean for point in points]


def _legend(report: Report) -> list[Line2D]:
    present: dict[Kind, None] = dict.fromkeys(point.kind for point in report.points)
    handles = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour, markersize=look.size, label=look.word)
        for kind, look in LOOKS.items()
        if kind in present
    ]
    if len(report.front) < len(report.points):
        handles.append(_ring(LOOKS["soup"].colour, "dominated", 4.5))
    if report.choices:
        handles.append(_ring(CHOSEN, "chosen", 8))
    return handles


def _ring(colour: str, word: str, size: float) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", mfc="white", mec=colour, markersize=size, label=word)
