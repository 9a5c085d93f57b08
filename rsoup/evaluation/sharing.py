"""Points of a sweep in one batch, each row mixing the experts by the weights of its point (``models.rowwise``).

A batch of few prompts takes hardly less time than one of many, so points that fit into a batch beside each other are
completed at once. In float32 a completion is the same either way: where rounding could decide, the row is computed
again from the folded mix (``decoding.Chooser``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from rsoup.adapters import Adapter
from rsoup.errors import AdapterError, RsoupError
from rsoup.evaluation.applying import applied
from rsoup.evaluation.cache import Completion
from rsoup.evaluation.decoding import CLOSE
from rsoup.evaluation.generation import Resident, Subject
from rsoup.evaluation.ingredients import BASE, adapters_in
from rsoup.evaluation.plan import Plan
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.rows import applied_in_passing, row_weighted
from rsoup.mixing import Soup
from rsoup.mixing.compatibility import check_compatible
from rsoup.models import packing
from rsoup.models.language_model import LanguageModel
from rsoup.models.rowwise import Alike, Mix, RowExperts, with_rows
from rsoup.tasks.loading import Example

FEWEST = 4
"""Points from which on it is worth finding out what is faster."""
KEPT = 32
"""Mixes kept for close calls; they are as large as one adapter each."""
TRIED = 3
"""Points of which the two ways are compared before any shares a batch."""


def may_share(plan: Plan, point: PlannedPoint, dtype: str) -> bool:
    """Tell whether a point may share batches, as far as the settings go.

    Left to choose, only those may of which the same bytes come either way: in float32, not measured against the base
    (KL would differ in its last digits). In narrower types rows round otherwise than folded weights.
    """
    settings = plan.settings
    chosen = settings.together is True or (settings.together == "auto" and dtype == "float32" and not settings.measures)
    plain = settings.engine == "transformers" and plan.base is None
    return chosen and plain and point.kind in ("base", "expert", "soup", "morl")


@dataclass(frozen=True)
class Crowd:
    """The experts of a sweep on its base, and its points as mixes of them."""

    model: LanguageModel
    names: tuple[str, ...]
    experts: RowExperts
    mixed: Callable[[PlannedPoint], Adapter | None]

    def mix(self, point: PlannedPoint) -> Mix:
        """Return what a row of the point is made of."""
        return Mix(tuple(point.weights.get(name, 0.0) for name in self.names), point.base_weight)

    def subject(self, points: Sequence[PlannedPoint]) -> Subject:
        """Return what completes a batch whose rows are of these points."""
        model = with_rows(self.model, self.experts, [self.mix(point) for point in points])
        return Rows(model, self.experts, self, tuple(points))

    @torch.no_grad()
    def error(self, points: Sequence[PlannedPoint], prompts: Sequence[Sequence[int]]) -> float:
        """Return how far the logits after prompts, one of each point, are from the folded models'.

        As a share of the largest logit.
        """
        ids, mask = self.model.pad(prompts)
        rows = self.subject(points)
        with rows.change, rows.model.at_rows(torch.arange(len(points), device=ids.device)):
            together = self._logits(ids, mask)
        errors = []
        for point, prompt, found in zip(points, prompts, together, strict=True):
            with applied(self.model, self.mixed(point)):
                alone = self._logits(*self.model.pad([prompt]))[0]
            errors.append(float((found - alone).abs().max() / alone.abs().max()))
        return float(np.max(errors))  # NaN if any is

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model.hidden_states(ids, mask, packing.prompt_positions(mask))
        return self.model.logits(hidden[:, -1]).float()


@dataclass(frozen=True)
class Rows(Subject):
    """A batch whose rows are each of a point."""

    crowd: Crowd
    points: tuple[PlannedPoint, ...]

    @property
    def uniform(self) -> bool:
        """Rows of several points encode each what their prompts begin with."""
        return False

    def alone(self, row: int) -> AbstractContextManager[None]:
        """Be the folded mix of a row's point."""
        return applied_in_passing(self.crowd.model, self.crowd.mixed(self.points[row]))

    def parts(self, rows: int) -> list[tuple[Sequence[int], AbstractContextManager[None]]]:
        """Return the rows of each point."""
        own: dict[PlannedPoint, list[int]] = {}
        for row in range(rows):
            own.setdefault(self.points[row], []).append(row)
        crowd = self.crowd
        return [(found, Alike(crowd.experts, crowd.mix(point), crowd.model.device)) for point, found in own.items()]


def crowd_of(model: LanguageModel, plan: Plan) -> Crowd:
    """Return the points of a plan as mixes of its experts; AdapterError if they cannot differ from row to row."""
    names = _experts_of(plan)
    adapters = adapters_in(plan.adapters)
    own = [adapters[name] for name in names]
    for adapter in own:
        if any(factor.dtype != np.float32 for layer in adapter.layers.values() for factor in (layer.down, layer.up)):
            raise AdapterError(
                f"The adapter {adapter.name} is narrower than float32: a mix of it is rounded, which rows are not.",
                "Leave evaluation.together out.",
            )
    experts = row_weighted(model, own, "cat" if plan.method == "cat" else "factors")

    @lru_cache(KEPT)
    def mixed(point: PlannedPoint) -> Adapter | None:
        soup = plan.mixed(point)
        return soup.adapter if isinstance(soup, Soup) else None

    return Crowd(model, names, experts, mixed)


def _experts_of(plan: Plan) -> tuple[str, ...]:
    """Return what points are mixes of: the ingredients, and the baselines if they can lie beside them."""
    own = tuple(name for name in plan.ingredients if name != BASE)
    others = [name for point in plan.points if point.kind == "morl" for name in point.used if name not in own]
    every = (*own, *others)
    adapters = adapters_in(plan.adapters)
    try:
        check_compatible([adapters[name] for name in every], plan.method, allow_different_starts=True)
    except AdapterError:
        return own
    return every


class Sharing:
    """Which points of a sweep share batches, and whether that is faster than one point after the other."""

    def __init__(self, plan: Plan, resident: Resident, examples: Sequence[Example], say: Callable[[str], None]) -> None:
        self._plan, self._resident, self._examples, self._say = plan, resident, examples, say
        self._asked = plan.settings.together is True
        self._crowd: Crowd | None = None
        self._alone: float | None = None  # seconds of a prompt, of a point by itself
        self._settled, self._faster = False, True

    def groups(
        self, points: Sequence[PlannedPoint], missing: Mapping[PlannedPoint, int]
    ) -> Iterator[list[PlannedPoint]]:
        """Yield the points to measure next, several at once, as long as that is faster or asked for.

        Where it is not asked for, the first is one point alone, to compare with.
        """
        largest = max(missing[point] for point in points)
        pays = len(points) >= FEWEST and 2 * largest <= self._resident.batch_size
        if not pays and not self._asked:
            return
        self._crowd = self._tried(points)
        if self._crowd is None:
            return
        queue = [point for point in points if set(point.used) <= set(self._crowd.names)]
        while queue and not self._asked and self._alone is None:
            yield [queue.pop()]
        while len(queue) > 1 and self._faster:
            group = [queue.pop(0), queue.pop(0)]
            left = self._resident.batch_size - sum(missing[point] for point in group)
            while queue and missing[queue[0]] <= left:
                group.append(queue.pop(0))
                left -= missing[group[-1]]
            yield group

    def complete(
        self, work: Mapping[PlannedPoint, Sequence[Example]], on_prompt: Callable[[PlannedPoint], None]
    ) -> dict[PlannedPoint, dict[str, list[Completion]]]:
        """Complete the prompts of several points at once."""
        assert self._crowd is not None
        return self._resident.complete_together(self._crowd.subject, work, on_prompt)

    def took(self, seconds: float, *, points: int) -> None:
        """Note what a prompt of so many points at once took, and say once what that leads to."""
        if points == 1:
            self._alone = seconds
        elif not self._asked and not self._settled:
            assert self._alone is not None
            self._settled, self._faster = True, seconds < self._alone
            together, alone = _shown(seconds), _shown(self._alone)
            if self._faster:
                self._say(f"Points share batches, {points} at once: {together} a prompt, one by one {alone}.")
            else:
                self._say(f"Points are measured one by one: {alone} a prompt, {points} at once {together}.")

    def _tried(self, points: Sequence[PlannedPoint]) -> Crowd | None:
        """Return the points as mixes, or None unless rows have the logits of folded models up to close calls."""
        model = self._resident.model
        try:
            if not self._resident.packs:
                raise AdapterError(f"{model.name} needs a row for each completion of a prompt.", "Use samples: 1.")
            crowd = crowd_of(model, self._plan)
            own = [point for point in points if set(point.used) <= set(crowd.names)]
            own = own[:: max(1, len(own) // TRIED)][:TRIED]
            shortest = sorted((example.tokens for example in self._examples), key=len)
            error = crowd.error(own, [shortest[row % len(shortest)] for row in range(len(own))])
            most = CLOSE / 4 if model.model.dtype == torch.float32 else 0.1
            if not error <= most:
                raise AdapterError(f"rows of a batch get other logits than points alone (by {error:.1g}).", "")
        except (RsoupError, RuntimeError, ValueError, IndexError) as problem:
            if self._asked:
                reason = problem.message if isinstance(problem, RsoupError) else str(problem)
                self._say(f"Points cannot share batches: {reason}")
            return None
        return crowd


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
