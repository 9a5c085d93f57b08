"""Names of rewards in pictures, with which way they are better."""

from __future__ import annotations

from matplotlib.figure import Figure

from rsoup.report.pictures.lettering import shortened, wrapped
from rsoup.report.schema import Report


def axis_name(figure: Figure, report: Report, name: str, room: float, size: float) -> str:
    """Return a reward's name, beside or above the words that say which way it is better, in ``room`` points."""
    way = report.better(name)
    if not way:
        return wrapped(figure, name, room, size)
    whole = f"{name} ({way})"
    if shortened(figure, whole, room, size) == whole:
        return whole
    return f"{wrapped(figure, name, room, size)}\n({way})"


def arrowed(report: Report, name: str) -> str:
    """Return a reward's name with an arrow the way it is better, for where words have no room."""
    return f"{name} {'↓' if name in report.minimized else '↑'}" if report.minimized else name
