"""Labels beside points, put where they cover the least of a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rsoup.pareto.dominance import Floats
from rsoup.report.pictures.style import INK

HALO = withStroke(linewidth=1.8, foreground="white")
MARK, BAR, LINE = 6.0, 1.3, 0.8  # how much a square point of each weighs when a label covers it
ROOM = 1.0  # points kept free around a label
DIRECTIONS = (
    *((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)),
    *((0.5, 1), (-0.5, 1), (0.5, -1), (-0.5, -1), (1, 0.5), (-1, 0.5), (1, -0.5), (-1, -0.5)),
)
DISTANCES = (3.0, 6.0, 10.0, 15.0, 21.0)
WORST = 14.0  # cost beyond which a label that may be left out is left out
ASTRAY = 30.0  # cost of standing nearer to another mark


@dataclass(frozen=True)
class Label:
    """A text beside a point, which is a mark of ``radius`` points; one that is not needed may be left out."""

    text: str
    x: float
    y: float
    radius: float = 3.0
    size: float = 6.5
    needed: bool = True
    colour: str = INK


class Ink:
    """What a panel shows already, as points of paper (x, y, weight), so that labels keep off it."""

    def __init__(self, figure: Figure, panel: Axes) -> None:
        self.panel = panel
        self.points_per_dot = 72 / figure.dpi
        self.frame: Floats = np.array(panel.bbox.extents) * self.points_per_dot  # left, bottom, right, top
        self.points: Floats = np.zeros((0, 3))
        self.marks: Floats = np.zeros((0, 2))

    def add_mark(self, x: float, y: float, radius: float) -> None:
        """Add a mark that fills a square."""
        centre = self.place(x, y)
        self.marks = np.vstack([self.marks, centre])
        self.add_box(centre - radius, centre + radius, MARK)

    def add_line(self, start: tuple[float, float], end: tuple[float, float], weight: float) -> None:
        """Add a straight line, or a bar."""
        first, last = self.place(*start), self.place(*end)
        steps = np.linspace(0, 1, 2 + min(2000, int(np.hypot(*(last - first)))))[:, None]
        self._add(first + steps * (last - first), weight)

    def add_box(self, low: Floats, high: Floats, weight: float) -> None:
        """Add a filled box between two corners."""
        across, up = np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)
        self._add(np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2), weight)

    def under(self, low: Floats, high: Floats) -> float:
        """Return the weight of what a box would cover."""
        places = self.points[:, :2]
        covered = ((places >= low) & (places <= high)).all(axis=1)
        return float(self.points[covered, 2].sum())

    def leads_astray(self, anchor: Floats, low: Floats, high: Floats) -> bool:
        """Return whether a box stands nearer to another mark than to its own."""
        away = [np.hypot(*np.maximum(0, np.maximum(low - marks, marks - high)).T) for marks in (self.marks, anchor)]
        return bool(away[0].min(initial=np.inf) < away[1] - 0.5)

    def place(self, x: float, y: float) -> Floats:
        """Return the place of a point of the data on paper, in points."""
        return np.asarray(self.panel.transData.transform((x, y))) * self.points_per_dot

    def _add(self, places: Floats, weight: float) -> None:
        self.points = np.vstack([self.points, np.column_stack([places, np.full(len(places), weight)])])


def write_labels(ink: Ink, labels: Iterable[Label]) -> None:
    """Write labels into a panel that is laid out, the needed ones first, each where it covers the least."""
    for label in sorted(labels, key=lambda label: not label.needed):
        anchor = ink.place(label.x, label.y)
        text = ink.panel.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=label.size,
            linespacing=1.0,
            color=label.colour,
            path_effects=[HALO],
            zorder=7,
            annotation_clip=False,
        )
        box = text.get_window_extent()
        size = np.array([box.width, box.height]) * ink.points_per_dot
        cost, corner = min(_candidates(ink, anchor, size, label.radius), key=lambda candidate: candidate[0])
        if cost > WORST and not label.needed:
            text.remove()
            continue
        descent = anchor[1] - box.y0 * ink.points_per_dot  # of the text below its base line
        text.set_position((corner[0] - anchor[0], corner[1] - anchor[1] + descent))
        ink.add_box(corner, corner + size, MARK)


def _candidates(ink: Ink, anchor: Floats, size: Floats, radius: float) -> list[tuple[float, Floats]]:
    """Return each place of a label's lower left corner with its cost; the nearest free one is cheapest."""
    found = []
    for distance in DISTANCES:
        for order, direction in enumerate(DIRECTIONS):
            reach = (radius + distance - 2) * (0.75 if all(direction) else 1.0)
            centre = anchor + np.array(direction) * (reach + size / 2)
            low, high = centre - size / 2, centre + size / 2
            outside = max(0.0, *(ink.frame[:2] + 2 * ROOM - low), *(high - ink.frame[2:]))
            covered = ink.under(low - ROOM, high + ROOM)
            astray = ASTRAY * ink.leads_astray(anchor, low, high)
            found.append((covered + astray + 0.8 * distance + 0.1 * order + 20 * outside, low))
    return found
