"""What rewards tell beside scores: figures, and columns with a value for each completion."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Log:
    """Takes figures and columns; ``prefix`` comes before their names."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    prefix: str = ""

    def under(self, name: str) -> Log:
        """Return a log that notes everything here, as ``name/...``."""
        return Log(self.figures, self.columns, f"{name}/")

    def metric(self, name: str, value: Any) -> None:
        """Note a figure; TypeError or ValueError if it is no number."""
        self.figures.setdefault(self.prefix + name, []).append(float(value))

    def extra(self, name: str, values: Iterable[Any]) -> None:
        """Note a column: a value for each completion."""
        self.columns.setdefault(self.prefix + name, []).extend(values)

    def means(self) -> dict[str, float | None]:
        """Return the mean of each figure over what is finite of it."""
        return {
            name: _mean([value for value in values if math.isfinite(value)]) for name, values in self.figures.items()
        }

    def first(self) -> dict[str, Any]:
        """Return the first value of each column, as text where JSON has no form for it."""
        values = {name: column[0] for name, column in self.columns.items() if column}
        return {name: value if _is_plain(value) else str(value) for name, value in values.items()}


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
