"""The front: points of every pair of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

from rsoup.evaluation.results import Kind
from rsoup.report.pictures.along import on_line
from rsoup.report.pictures.labels import BAR, LINE, Ink, Label, write_labels
from rsoup.report.pictures.lettering import printable, shortened
from rsoup.report.pictures.naming import axis_name
from rsoup.report.pictures.spread import WITH_BARS, bars, spread_word
from rsoup.report.pictures.style import (
    CHOSEN,
    CHOSEN_INK,
    COLUMN_INCHES,
    FAINT,
    INK,
    LOOKS,
    PANEL_INCHES,
    drawing,
    lay_out,
    write_legend,
)
from rsoup.report.schema import Report, ReportPoint

LABELLED = 11  # points on a line up to which each carries its lambda, else every second, third ...
RING = 11.0  # points across, around a choice


def draw_front(report: Report, stem: Path) -> None:
    """Draw the points of every pair of rewards, with bars, the chord between two experts and the choices."""
    pairs = list(combinations(report.rewards, 2))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    side = COLUMN_INCHES if columns == 1 else PANEL_INCHES
    with drawing(stem, side * columns, 0.82 * side * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (first, second) in zip(panels, pairs, strict=False):
            _draw_panel(panel, report, first, second)
            panel.set_xlabel(axis_name(figure, report, first, 52 * side, 8))
            panel.set_ylabel(axis_name(figure, report, second, 40 * side, 8))
        for panel in panels[len(pairs) :]:
            panel.set_axis_off()
        write_legend(figure, _entries(report))
        lay_out(figure)  # labels keep clear of what lies where on paper
        for panel, (first, second) in zip(panels, pairs, strict=False):
            write_labels(_ink(figure, panel, report, first, second), _labels(figure, report, first, second))


def _draw_panel(panel: Axes, report: Report, first: str, second: str) -> None:
    line = _line(report)
    if line:
        ends = [line[0], line[-1]]
        panel.plot(*_coordinates(ends, first, second), color=FAINT, linestyle="--", linewidth=0.9, zorder=1)
        panel.plot(*_coordinates(line, first, second), color=LOOKS["soup"].colour, linewidth=0.9, alpha=0.5, zorder=2)
    for (kind, on_front), group in _alike(report).items():
        look = LOOKS[kind]
        panel.add_collection(LineCollection(bars(group, first, second), colors=look.bar, linewidths=0.6, zorder=2))
        fill = look.colour if on_front else "white"
        size = look.size if len(group) <= WITH_BARS else 0.5 * look.size
        x, y = _coordinates(group, first, second)
        panel.plot(x, y, look.marker, color=look.colour, mfc=fill, ms=size, mew=0.9, zorder=4)
    x, y = _coordinates(_ringed(report), first, second)
    panel.plot(x, y, "o", mfc="none", mec=CHOSEN, ms=RING, mew=1.3, zorder=6)
    panel.margins(0.12)


def _ink(figure: Figure, panel: Axes, report: Report, first: str, second: str) -> Ink:
    """Return what ``_draw_panel`` draws, for labels to keep off."""
    ink = Ink(figure, panel)
    for group in _alike(report).values():
        for start, end in bars(group, first, second):
            ink.add_line(start, end, BAR)
        for x, y in zip(*_coordinates(group, first, second), strict=True):
            ink.add_mark(x, y, 3.0)
    for x, y in zip(*_coordinates(_ringed(report), first, second), strict=True):
        ink.add_mark(x, y, RING / 2)
    line = list(zip(*_coordinates(_line(report), first, second), strict=True))
    for start, end in pairwise(line):
        ink.add_line(start, end, LINE)
    if line:
        ink.add_line(line[0], line[-1], LINE)
    return ink


def _labels(figure: Figure, report: Report, first: str, second: str) -> list[Label]:
    """Return the names of the ends of a line, the rules of each choice, and lambda along the line."""
    line, ringed = _line(report), _ringed(report)

    def label(point: ReportPoint, text: str, *, needed: bool = True, colour: str = INK) -> Label:
        radius = RING / 2 if point in ringed else 3.0
        x, y = point.scores[first].mean, point.scores[second].mean
        text = "\n".join(shortened(figure, row, 100, 6.5) for row in text.splitlines())
        return Label(text, x, y, radius, needed=needed, colour=colour)

    return [
        *(label(point, printable(point.id)) for point in line[:1] + line[-1:]),
        *(label(point, _rules(report, point), colour=CHOSEN_INK) for point in ringed),
        *(label(point, f"{point.lam:g}", needed=False) for point in _numbered(line)),
    ]


def _line(report: Report) -> list[ReportPoint]:
    """Return the points of the line between two experts where it can be drawn: against two rewards."""
    return on_line(report) if len(report.rewards) == 2 else []


def _numbered(line: list[ReportPoint]) -> list[ReportPoint]:
    """Return the points that carry their lambda: all between the ends, or every second, third ... of many."""
    stride = max(1, -(-(len(line) - 1) // (LABELLED - 1)))
    return line[stride:-1:stride]


def _ringed(report: Report) -> list[ReportPoint]:
    chosen = {choice.nearest for choice in report.choices}
    return [point for point in report.points if point.id in chosen]


def _rules(report: Report, point: ReportPoint) -> str:
    """Return the rules that chose a point, three at most, with the preference where one rule served several."""
    words = []
    for choice in report.choices:
        if choice.nearest == point.id:
            word = choice.rule.removeprefix("lambda = ")
            several = sum(other.rule == choice.rule for other in report.choices) > 1
            asked = "/".join(f"{value:g}" for value in choice.asked.values())
            words.append(f"{word} {asked}" if several else word)
    return "\n".join(words if len(words) <= 3 else [*words[:2], f"and {len(words) - 2} more"])


def _alike(report: Report) -> dict[tuple[Kind, bool], list[ReportPoint]]:
    """Return the points that look the same together: one kind, all on the front or all beaten."""
    groups: dict[tuple[Kind, bool], list[ReportPoint]] = {}
    for point in report.points:
        groups.setdefault((point.kind, point.on_front), []).append(point)
    return groups


def _coordinates(points: Sequence[ReportPoint], first: str, second: str) -> tuple[list[float], list[float]]:
    return [point.scores[first].mean for point in points], [point.scores[second].mean for point in points]


def _entries(report: Report) -> list[Artist]:
    """Return the legend: the kinds that are there, and what hollow marks, bars, rings and numbers mean."""
    present = {point.kind for point in report.points}
    entries: list[Artist] = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.colour, markersize=look.size, label=look.word)
        for kind, look in LOOKS.items()
        if kind in present
    ]
    if not all(point.on_front for point in report.points):
        entries.append(_ring(LOOKS["base"].colour, "dominated", 4.5))
    if any(bars(group, *report.rewards[:2]) for group in _alike(report).values()):
        entries.append(Line2D([], [], color=LOOKS["soup"].bar, linewidth=0.6, label=spread_word(report)))
    if report.choices:
        entries.append(_ring(CHOSEN, "chosen, with the rule", 8))
    if _numbered(_line(report)):
        number = TextPath((0, 0), "0.5", size=6.5)
        centred = Outline(number.vertices - number.get_extents().get_points().mean(axis=0), number.codes)
        entries.append(Line2D([], [], linestyle="", marker=centred, color=INK, mew=0, markersize=10, label="lambda"))
    return entries


def _ring(colour: str, word: str, size: float) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", mfc="white", mec=colour, markersize=size, label=word)
