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

MEASURES: dict[str, Callable[[Cost], float]] = {
    "optimiser steps": lambda cost: cost.optimizer_steps,
    "sampled tokens (thousands)": lambda cost: cost.tokens / 1000,
    "minutes of training": lambda cost: cost.seconds / 60,
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
    with drawing(stem, PANEL_INCHES * len(MEASURES), 0.95 * PANEL_INCHES) as figure:
        panels = figure.subplots(1, len(MEASURES), sharey=True)
        for panel, (word, measure) in zip(panels, MEASURES.items(), strict=True):
            _draw_panel(panel, report, measure)
            panel.set_xlabel(word)
            panel.set_xlim(left=0)
            panel.margins(x=0.1)
        panels[0].set_ylabel("hypervolume")
        write_legend(figure, list(_entries(report)))
        lay_out(figure)


def _draw_panel(panel: Axes, report: Report, measure: Callable[[Cost], float]) -> None:
    fronts = [front for front in report.fronts if front.cost is not None]
    grown = [front for front in fronts if _is_morl(front)]
    panel.plot(
        [measure(front.cost) for front in grown if front.cost is not None],
        [front.hypervolume.value for front in grown],
        color=LOOKS["morl"].colour,
        linewidth=0.9,
        alpha=0.6,
    )
    places = _apart([measure(front.cost) for front in fronts if front.cost is not None])
    for front, x in zip(fronts, places, strict=True):
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
