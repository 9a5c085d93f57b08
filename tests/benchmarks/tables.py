"""Tables in Markdown, which every benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def show(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def show_growth(varied: str, unit: str, figures: Mapping[object, float], digits: int = 2) -> None:
    """Print how a figure grows with what is varied, a column for each value."""
    show([varied, *map(str, figures)], [[unit, *(f"{figure:.{digits}f}" for figure in figures.values())]])
