"""Fronts against their cost: how much each dominates, over what its trainings took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rsoup.report.pictures.lettering import printable
from rsoup.report.pictures.style import LOOKS, PANEL_INCHES, Look, drawing, lay_out, write_legend
from rsoup.report.schema import Cost, FrontAtCost, Report

MEASURES: dict[str, Callable[[Cost], float | None]] = {
    "optimiser steps": lambda cost: cost.optimizer_steps,
    "sampled tokens (thousands)": lambda cost: cost.tokens / 1000,
    "minutes of training": lambda cost: None if cost.seconds is None else cost.seconds / 60,
}
BESIDE = 0.015
"""Share of the axis between fronts of one cost."""
OTHERS = (("#7B5EA7", "d"), ("#E69F00", "X"), ("#56B4E9", "<"), ("#555555", "*"), ("#A6761D", ">"), ("#8A9099", "h"))
"""Colours and marks of the fronts that a recipe names."""


def has_costs(report: Report) -> bool:
    """Tell whether two fronts at least are known with their cost."""
    return sum(front.cost is not None for front in report.fronts) > 1


def draw_costs(report: Report, stem: Path) -> None:
    """Draw the hypervolume of each front, with its bar, over the steps, tokens and minutes of its trainings."""
    known = {word: paid for word, measure in MEASURES.items() if (paid := _paid(report, measure))}
    with drawing(stem, PANEL_INCHES * len(known), 0.95 * PANEL_INCHES) as figure:
        panels = figure.subplots(1, len(known), sharey=True)
        for panel, (word, paid) in zip(panels, known.items(), strict=True):
            _draw_panel(panel, report, paid)
            panel.set_xlabel(word)
            panel.set_xlim(left=0)
            panel.margins(x=0.1)
        panels[0].set_ylabel("hypervolume")
        write_legend(figure, list(_entries(report)))
        lay_out(figure)


def _paid(report: Report, measure: Callable[[Cost], float | None]) -> list[float]:
    """Return a measure of the cost of each front that has one; nothing if it is not known of all."""
    found = [measure(front.cost) for front in report.fronts if front.cost is not None]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else []


def _draw_panel(panel: Axes, report: Report, paid: list[float]) -> None:
    fronts = [front for front in report.fronts if front.cost is not None]
    grown = [(x, front.hypervolume.value) for front, x in zip(fronts, paid, strict=True) if _is_morl(front)]
    panel.plot([x for x, _ in grown], [y for _, y in grown], color=LOOKS["morl"].colour, linewidth=0.9, alpha=0.6)
    for front, x in zip(fronts, _apart(paid), strict=True):
        look, y = _look(report, front), front.hypervolume.value
        if front.hypervolume.interval is not None:
            panel.plot([x, x], front.hypervolume.interval, color=look.bar, linewidth=0.6, zorder=2)
        panel.plot([x], [y], look.marker, color=look.colour, ms=look.size, mew=0.9, zorder=4)


def _apart(costs: list[float]) -> list[float]:
    """Return costs with equal ones a little beside each other, so that their bars can be told apart."""
    step = BESIDE * max(costs)
    return [cost + step * (costs[:place].count(cost) - (costs.count(cost) - 1) / 2) for place, cost in enumerate(costs)]


def _entries(report: Report) -> Iterator[Artist]:
    told = set()
    for front in report.fronts:
        look = _look(report, front)
        if front.cost is not None and look.word not in told:
            told.add(look.word)
            yield Line2D([], [], linestyle="", marker=look.marker, color=look.colour, ms=look.size, label=look.word)
    if report.bootstrap is not None:
        word = f"{100 * report.bootstrap.level:g} % interval"
        yield Line2D([], [], color=LOOKS["base"].bar, linewidth=0.6, label=word)


def _look(report: Report, front: FrontAtCost) -> Look:
    """Return how a front looks: those that every report has as their points do, each other one by itself."""
    own = {"soups": LOOKS["soup"], "ensemble": LOOKS["ensemble"], "mod": LOOKS["mod"]}
    if front.name in own:
        return own[front.name]
    if _is_morl(front):
        return LOOKS["morl"]
    named = [other.name for other in report.fronts if other.name not in own and not _is_morl(other)]
    colour, marker = OTHERS[named.index(front.name) % len(OTHERS)]
    return Look(colour, colour, marker, 5.0, printable(front.name))


def _is_morl(front: FrontAtCost) -> bool:
    return front.name == "MORL" or front.name.startswith("MORL, ")
