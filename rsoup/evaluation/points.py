"""A point of a sweep: a model to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field

from rsoup.evaluation.layout import rounded
from rsoup.evaluation.records import Kind


@dataclass(frozen=True, eq=False)
class PlannedPoint:
    """A model to evaluate: adapters mixed by ``weights`` and the base by ``base_weight``; the base if there are none.

    A ``kind`` ensemble or mod mixes what they predict instead.
    """

    id: str
    kind: Kind
    weights: dict[str, float]
    lam: float | None = None
    base_weight: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, float]:
        """The weights that are not 0."""
        return {name: weight for name, weight in self.weights.items() if weight}

    @property
    def made_of(self) -> tuple[frozenset[tuple[str, float]], float]:
        """What tells models apart: the weights of adapters, and the base's, rounded."""
        used = self.used
        (share,) = rounded([self.base_weight])
        return frozenset(zip(used, rounded(list(used.values())), strict=True)), share if used else 0.0
