"""Fronts against what their trainings took, and the soups against MORL at equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rsoup.evaluation.results import Kind
from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import hypervolume, hypervolumes
from rsoup.report.evidence import Evidence
from rsoup.report.measured import Measured
from rsoup.report.schema import Cost, Estimate, FrontAtCost, Hypothesis, Verdict

EQUAL_COST_CLAIM = (
    "Pareto coverage at equal cost: the soups' front is at least as large as any of MORL runs, experts among them, "
    "whose trainings took no more."
)
SOUPS, MORL = "soups", "MORL"
SETS = 12
"""Runs of which every set is tried for the best one; of more, the best is found by adding one after the other."""
ROWS = 6
"""Runs up to which the front of each number of them is listed; of more, those of 1, 2, 4, 8, ... and all."""
SLACK = 1 + 1e-9
ROUNDING = 1e-12


@dataclass(frozen=True)
class _Group:
    """Models that make a front, and the trainings that they need."""

    name: str
    rows: tuple[int, ...]
    trainings: tuple[str, ...]


def fronts_at_cost(evidence: Evidence, reference: Floats) -> list[FrontAtCost]:
    """Return the soups' front and every other at its cost; nothing where there is no other.

    Of the MORL runs, experts among them, the front of each number is that of the runs which by their means dominate
    most together.
    """
    measured = evidence.measured
    groups = _groups(measured, reference)
    if len(groups) < 2 or groups[0].name != SOUPS:
        return []
    soups = list(groups[0].rows)
    return [_at_cost(evidence, reference, own, None if own.name == SOUPS else soups) for own in groups]


def _at_cost(evidence: Evidence, reference: Floats, group: _Group, soups: list[int] | None) -> FrontAtCost:
    measured, rows = evidence.measured, list(group.rows)

    def volume(draws: Floats) -> Floats:
        return hypervolumes(draws[:, rows], reference)

    def lead(draws: Floats) -> Floats:
        return _difference(hypervolumes(draws[:, soups], reference), volume(draws))

    return FrontAtCost(
        name=group.name,
        points=[measured.models[row].id for row in rows],
        trainings=list(group.trainings),
        cost=_cost(measured, group.trainings),
        passes=max(_passes(measured, row) for row in rows),
        hypervolume=evidence.estimate(volume, within=(0.0, np.inf)),
        soups_lead=None if soups is None else evidence.estimate(lead),
    )


def equal_cost_hypothesis(evidence: Evidence, reference: Floats) -> Hypothesis:
    """Say in words whether MORL runs that took no more than the soups' trainings have a larger front."""
    measured = evidence.measured
    soups, runs = measured.rows("soup", "expert"), _runs(measured)
    trainings = measured.trainings(soups)
    if not soups or not measured.rows("morl") or not trainings:
        words = (
            "No MORL run was measured beside soups."
            if not measured.rows("morl")
            else "The soups' trainings are not known."
        )
        return Hypothesis(claim=EQUAL_COST_CLAIM, verdict="unknown", words=words)
    steps = _steps(measured, trainings), [_steps(measured, measured.trainings([row])) for row in runs]
    in_steps = steps[0] is not None and None not in steps[1]
    budget = float(steps[0] or 0.0) if in_steps else float(len(trainings))
    prices = [float(price or 0.0) for price in steps[1]] if in_steps else [1.0] * len(runs)
    chosen = _best_set(measured.scores, runs, prices, budget, reference)
    named = _groups_of_runs(measured, budget) if in_steps else []
    rivals = [*([_Group("", chosen, ())] if chosen else []), *named]
    paid = f"{budget:g} optimiser steps" if in_steps else f"{len(trainings)} trainings"
    if not rivals:
        return Hypothesis(claim=EQUAL_COST_CLAIM, verdict="holds", words=f"No MORL run took {paid} or less.")

    def lead(draws: Floats) -> Floats:
        best = np.max([hypervolumes(draws[:, list(own.rows)], reference) for own in rivals], axis=0)
        return _difference(hypervolumes(draws[:, soups], reference), best)

    ours = hypervolume(measured.scores[soups], reference)
    theirs = [hypervolume(measured.scores[list(own.rows)], reference) for own in rivals]
    best = rivals[int(np.argmax(theirs))]
    ids = ", ".join(measured.models[row].id for row in best.rows)
    told = best.name or f"{len(best.rows)} of {len(runs)} runs"
    found = evidence.estimate(lead)
    verdict = _verdict(found)
    words = f"For the soups' {paid} MORL's best front is {told} ({ids}): it dominates {max(theirs):.3g}, the soups "
    words += f"{ours:.3g}, a difference of {_signed(found)}"
    words += ", which chance explains." if verdict == "holds within error" else "."
    return Hypothesis(claim=EQUAL_COST_CLAIM, verdict=verdict, words=words)


def _groups(measured: Measured, reference: Floats) -> list[_Group]:
    """Return the fronts of a report, the soups' first."""
    corners, runs = measured.corners(), _runs(measured)
    found = [_group(measured, SOUPS, measured.rows("soup", "expert"))] if measured.rows("soup", "expert") else []
    for size in _sizes(len(runs)) if measured.rows("morl") else ():
        rows = _best_set(measured.scores, runs, [1.0] * len(runs), float(size), reference)
        found.append(_group(measured, MORL if size == len(runs) else f"{MORL}, {size} of {len(runs)}", rows))
    by_id = {model.id: row for row, model in enumerate(measured.models)}
    for name, ids in measured.fronts.items():
        found.append(_group(measured, name, [by_id[own] for own in ids]))
    kinds: tuple[Kind, ...] = ("ensemble", "mod")
    for kind in kinds:
        if mixed := measured.rows(kind):
            found.append(_group(measured, kind, [*mixed, *corners]))
    return found


def _group(measured: Measured, name: str, rows: Sequence[int]) -> _Group:
    return _Group(name, tuple(rows), tuple(measured.trainings(rows)))


def _groups_of_runs(measured: Measured, budget: float) -> list[_Group]:
    """Return the named fronts of unmixed adapters whose trainings took no more."""
    by_id = {model.id: row for row, model in enumerate(measured.models)}
    groups = [_group(measured, name, [by_id[own] for own in ids]) for name, ids in measured.fronts.items()]
    return [
        own
        for own in groups
        if all(measured.models[row].alone() is not None for row in own.rows)
        and (steps := _steps(measured, own.trainings)) is not None
        and steps <= budget * SLACK
    ]


def _runs(measured: Measured) -> list[int]:
    """Return the MORL runs, those of the corners among them."""
    return [*measured.rows("morl"), *measured.corners()]


def _sizes(count: int) -> list[int]:
    if count <= ROWS:
        return list(range(1, count + 1))
    return [*(2**power for power in range(math.ceil(math.log2(count)))), count]


def _best_set(
    scores: Floats, rows: Sequence[int], prices: Sequence[float], budget: float, reference: Floats
) -> tuple[int, ...]:
    """Return the rows that dominate most together, among the sets that cost no more than the budget."""
    priced = dict(zip(rows, prices, strict=True))

    def fits(own: Sequence[int]) -> bool:
        return sum(priced[row] for row in own) <= budget * SLACK

    def volume(own: Sequence[int]) -> float:
        return hypervolume(scores[list(own)], reference)

    if len(rows) <= SETS:
        sets = (own for size in range(1, len(rows) + 1) for own in combinations(rows, size) if fits(own))
        return max(sets, key=lambda own: (volume(own), len(own)), default=())
    found: tuple[int, ...] = ()
    while more := [(*found, row) for row in rows if row not in found and fits((*found, row))]:
        found = max(more, key=volume)
    return found


def _cost(measured: Measured, trainings: Sequence[str]) -> Cost | None:
    spent = [measured.spent[name] for name in trainings if name in measured.spent]
    if len(spent) < len(trainings):
        return None
    seconds = [own.seconds for own in spent if own.seconds is not None]
    return Cost(
        optimizer_steps=math.fsum(own.optimizer_steps for own in spent),
        tokens=math.fsum(own.tokens for own in spent),
        seconds=math.fsum(seconds) if len(seconds) == len(spent) else None,
    )


def _steps(measured: Measured, trainings: Sequence[str]) -> float | None:
    cost = _cost(measured, trainings)
    return None if cost is None else cost.optimizer_steps


def _difference(ours: Floats, theirs: Floats) -> Floats:
    """Return one less the other, and nothing where only rounding parts them: fronts may share their best points."""
    apart = ours - theirs
    return np.where(np.abs(apart) > ROUNDING * np.maximum(ours, theirs), apart, 0.0)


def _passes(measured: Measured, row: int) -> int:
    """Return the passes of the model that a token takes: predictions are mixed of one for each adapter."""
    model = measured.models[row]
    return sum(map(bool, model.weights.values())) if model.kind in ("ensemble", "mod") else 1


def _verdict(lead: Estimate) -> Verdict:
    if lead.value >= 0:
        return "holds"
    return "holds within error" if lead.interval is not None and lead.interval[1] >= 0 else "fails"


def _signed(figure: Estimate) -> str:
    ends = "" if figure.interval is None else f" [{figure.interval[0]:+.2g}, {figure.interval[1]:+.2g}]"
    return f"{figure.value:+.2g}{ends}" if figure.value else f"0{ends}"
