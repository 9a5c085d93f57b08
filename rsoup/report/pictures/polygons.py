"""Pictures for more than two rewards: a radar of several models, triangles of three experts' weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rsoup.evaluation.results import Kind
from rsoup.pareto.direction import signs_of, turned
from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import scaled
from rsoup.report.pictures.lettering import shortened, wrapped
from rsoup.report.pictures.naming import arrowed, axis_name
from rsoup.report.pictures.style import CHOSEN, COLUMN_INCHES, FAINT, drawing, write_legend
from rsoup.report.schema import Report, ReportPoint

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
DASHES: dict[Kind, str] = {
    "expert": "--",
    "soup": "-",
    "morl": "-.",
    "base": ":",
    "ensemble": "-.",
    "mod": "-.",
    "mix": "-.",
    "checkpoint": ":",
    "model": "-",
}
POLYGONS = 2 * len(OKABE_ITO)  # that a radar can show: each colour without and with marks
MARKED = 200  # soups that a triangle can mark
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def draw_radar(report: Report, stem: Path) -> None:
    """Draw base, experts, the most even soup and the choices, each reward scaled over all measured points."""
    scores = np.array([[point.scores[name].mean for name in report.rewards] for point in report.points])
    gains = turned(scores, signs_of(report.rewards, report.minimized))
    shares = scaled(gains, gains.min(axis=0), gains.max(axis=0))
    angles = np.linspace(0, 2 * np.pi, len(report.rewards), endpoint=False)
    around = np.append(angles, angles[0])
    with drawing(stem, COLUMN_INCHES, 2.6) as figure:
        panel = figure.add_subplot(projection="polar", theta_offset=np.pi / 2)
        for place, row in enumerate(_telling(report)):
            point = report.points[row]
            colour, marker = OKABE_ITO[place % len(OKABE_ITO)], "" if place < len(OKABE_ITO) else "o"
            values = np.append(shares[row], shares[row][0])
            name = shortened(figure, point.id, 190, 7)
            panel.plot(around, values, color=colour, linestyle=DASHES[point.kind], marker=marker, ms=3, label=name)
            if point.kind == "soup":
                panel.fill(around, values, color=colour, alpha=0.1, linewidth=0)
        panel.set_xticks(angles, [""] * len(angles))
        for angle, name in zip(angles, report.rewards, strict=True):
            _name_axis(panel, angle, wrapped(figure, arrowed(report, name), 66, 7, lines=3))
        panel.set_yticks([0.0, 0.5, 1.0], ["", "", ""])
        panel.set_ylim(-0.25, 1.05)  # the worst score keeps a distance from the centre, so that shapes stay visible
        panel.grid(color=FAINT, linewidth=0.4, alpha=0.6)
        panel.spines["polar"].set_visible(False)
        write_legend(figure, panel.lines, title="inner ring: worst measured, outer ring: best")


def _name_axis(panel: Axes, angle: float, name: str) -> None:
    """Write a name outside the outer ring; the first angle points up."""
    across, up = -np.sin(angle), np.cos(angle)
    side = "left" if across > 0.1 else "right" if across < -0.1 else "center"
    level = "bottom" if up > 0.5 else "top" if up < -0.5 else "center"
    offset = 4 * across, 4 * up
    panel.annotate(name, (angle, 1.05), offset, textcoords="offset points", ha=side, va=level, fontsize=7)


def draw_ternary(report: Report, stem: Path) -> None:
    """Draw one triangle of weights for each reward, the brighter the better its score; the front is outlined."""
    names, soups, places = triangle(report)
    with drawing(stem, COLUMN_INCHES * 2, 2.6) as figure:
        for panel, reward in zip(figure.subplots(1, 3), report.rewards, strict=True):
            written = [wrapped(figure, name, 60, 6.5) for name in names]
            _triangle(panel, written)
            values = np.array([point.scores[reward].mean for point in soups])
            colour_map = "cividis_r" if reward in report.minimized else "cividis"
            colours = panel.tripcolor(*places.T, values, shading="gouraud", cmap=colour_map, zorder=0, rasterized=True)
            if len(soups) <= MARKED:
                _mark_soups(panel, soups, places, values, colour_map)
            panel.set_title(axis_name(figure, report, reward, 150, 8), pad=10 * written[2].count("\n") + 2)
            bar = figure.colorbar(colours, ax=panel, orientation="horizontal", shrink=0.7, aspect=25, pad=0.02)
            bar.outline.set_visible(False)
        if len(soups) <= MARKED:
            ring = Line2D([], [], linestyle="", marker="o", mfc="none", mec=CHOSEN, markersize=6, label="on the front")
            write_legend(figure, [ring])


def triangle(report: Report) -> tuple[list[str], list[ReportPoint], Floats]:
    """Return the three experts, their soups without negative weights, and the places of these in the triangle.

    No soups unless they span the triangle.
    """
    names = next((list(p.weights) for p in report.points if p.kind == "soup" and len(p.weights) == 3), [])
    soups = [p for p in report.points if p.kind in ("soup", "expert") and p.weights and set(p.weights) <= set(names)]
    soups = [point for point in soups if min(point.weights.values()) >= 0]
    weights = np.array([[point.weights.get(name, 0.0) for name in names] for point in soups])
    places = weights @ CORNERS if soups else np.zeros((0, 2))
    flat = len(soups) < 3 or np.linalg.matrix_rank(places - places[0], tol=1e-6) < 2
    return names, [] if flat else soups, places


def _telling(report: Report) -> list[int]:
    """Return the rows worth a polygon: base, experts, MORL (at most two), the evenest soup, the choices.

    Where these are too many, experts are left out first, then choices.
    """
    kinds = [point.kind for point in report.points]
    experts = [row for row, kind in enumerate(kinds) if kind == "expert"]
    others = [row for row, kind in enumerate(kinds) if kind == "base"][:1]
    others += [row for row, kind in enumerate(kinds) if kind == "morl"][:2]
    soups = [row for row, point in enumerate(report.points) if point.kind == "soup" and point.weights]
    if soups:
        others.append(min(soups, key=lambda row: _unevenness(report.points[row])))
    chosen = {choice.nearest for choice in report.choices}
    others += [row for row, point in enumerate(report.points) if point.id in chosen]
    front = [row for row, point in enumerate(report.points) if point.on_front]
    rows = list(dict.fromkeys(others + experts)) or front
    return sorted(rows[:POLYGONS], key=lambda row: (kinds[row] != "base", kinds[row] != "expert"))


def _unevenness(point: ReportPoint) -> float:
    return float(sum(weight**2 for weight in point.weights.values()))


def _triangle(panel: Axes, names: list[str]) -> None:
    outline = np.vstack([CORNERS, CORNERS[:1]])
    panel.plot(outline[:, 0], outline[:, 1], color=FAINT, linewidth=0.7, zorder=1)
    places = (((-10, -4), "left", "top"), ((10, -4), "right", "top"), ((0, 4), "center", "bottom"))
    for corner, name, (offset, side, level) in zip(CORNERS, names, places, strict=True):
        panel.annotate(name, corner, offset, textcoords="offset points", ha=side, va=level, fontsize=6.5)
    panel.set_aspect("equal")
    panel.set_axis_off()
    panel.margins(0.12)


def _mark_soups(panel: Axes, soups: list[ReportPoint], places: Floats, values: Floats, colour_map: str) -> None:
    """Mark each measured soup; those on the front have a ring."""
    x, y = places.T
    panel.scatter(x, y, c=values, cmap=colour_map, s=22, edgecolors="white", linewidths=0.6, zorder=3, clip_on=False)
    x, y = places[[point.on_front for point in soups]].T
    panel.scatter(x, y, s=34, facecolors="none", edgecolors=CHOSEN, linewidths=0.9, zorder=4, clip_on=False)
