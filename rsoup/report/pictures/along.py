"""The rewards along the line between two experts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rsoup.report.pictures.naming import axis_name
from rsoup.report.pictures.spread import spread, spread_word
from rsoup.report.pictures.style import COLUMN_INCHES, FAINT, LOOKS, PANEL_INCHES, drawing, write_legend
from rsoup.report.schema import Report, ReportPoint

PALE = 0.18  # opacity of a band


def on_line(report: Report) -> list[ReportPoint]:
    """Return the soups and experts between lambda 0 and 1, in order; none unless both ends were measured."""
    line = [p for p in report.points if p.kind in ("soup", "expert") and p.lam is not None and 0 <= p.lam <= 1]
    line.sort(key=lambda point: point.lam or 0.0)
    return line if line and line[0].lam == 0 and line[-1].lam == 1 else []


def draw_line(report: Report, stem: Path) -> None:
    """Draw each reward along lambda against the straight line between the experts."""
    columns = min(len(report.rewards), 3)
    rows = -(-len(report.rewards) // columns)
    side = PANEL_INCHES if columns > 2 else COLUMN_INCHES * 0.95
    with drawing(stem, side * columns, 0.75 * side * rows) as figure:
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for panel, name in zip(panels, report.rewards, strict=False):
            _panel(panel, report, name)
            panel.set_ylabel(axis_name(figure, report, name, 42 * side, 8))
        for panel in panels[len(report.rewards) :]:
            panel.set_axis_off()
        for panel in panels[: len(report.rewards)][-columns:]:  # the lowest of each column
            panel.set_xlabel("lambda")
            panel.tick_params(labelbottom=True)
        write_legend(figure, _entries(report))


def _panel(panel: Axes, report: Report, name: str) -> None:
    line = on_line(report)
    lams = np.array([point.lam for point in line], dtype=float)
    means = np.array([point.scores[name].mean for point in line])
    bands = [band for band in (spread(point.scores[name]) for point in line) if band is not None]
    if len(bands) == len(line):
        low, high = np.array(bands).T
        panel.fill_between(lams, low, high, color=LOOKS["soup"].colour, alpha=PALE, linewidth=0)
    panel.plot(lams, means, color=LOOKS["soup"].colour)
    for kind in ("soup", "expert"):
        rows = [row for row, point in enumerate(line) if point.kind == kind]
        panel.plot(lams[rows], means[rows], LOOKS[kind].marker, color=LOOKS[kind].colour, ms=_size(kind), zorder=3)
    panel.plot(lams[[0, -1]], means[[0, -1]], color=FAINT, linestyle="--", linewidth=0.9)
    for point in report.points:
        if point.kind == "base":
            panel.axhline(point.scores[name].mean, color=LOOKS["base"].colour, linestyle=":", linewidth=0.9)


def _entries(report: Report) -> list[Artist]:
    line = on_line(report)
    entries: list[Artist] = [
        Line2D([], [], color=LOOKS[kind].colour, marker=LOOKS[kind].marker, ms=_size(kind), label=f"{kind}s")
        for kind in ("soup", "expert")
        if any(point.kind == kind for point in line)
    ]
    if all(spread(score) is not None for point in line for score in point.scores.values()):
        entries.append(Patch(label=spread_word(report), color=LOOKS["soup"].colour, alpha=PALE, linewidth=0))
    entries.append(Line2D([], [], color=FAINT, linestyle="--", label="line between the experts"))
    if any(point.kind == "base" for point in report.points):
        entries.append(Line2D([], [], color=LOOKS["base"].colour, linestyle=":", label="base"))
    return entries


def _size(kind: str) -> float:
    return 3.5 if kind == "soup" else 4.5
