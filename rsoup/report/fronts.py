"""The front and its figures: who is on it, how much it dominates."""

from __future__ import annotations

from typing import get_args

import numpy as np

from rsoup.evaluation.results import Kind
from rsoup.pareto.direction import turned
from rsoup.pareto.dominance import Floats, dominates, non_dominated
from rsoup.pareto.indicators import (
    area_over_curve,
    controllability,
    hypervolumes,
    mean_inner_product,
    scaled,
    spacing,
    sparsity,
)
from rsoup.report.evidence import Evidence
from rsoup.report.measured import Measured
from rsoup.report.schema import ReportPoint, Volume

MORL_FRONT = "morl+experts"
"""The MORL runs with the experts, which are the runs of the corners of the preferences."""
GROUPS: dict[str, tuple[Kind, ...]] = {
    "all": get_args(Kind),
    "soup": ("soup", "expert"),  # an expert is the soup with all weight on it
    "expert": ("expert",),
    "morl": ("morl",),
    "base": ("base",),
    "ensemble": ("ensemble",),
    "mod": ("mod",),
    "checkpoint": ("checkpoint",),
    "model": ("model",),
}


def report_points(evidence: Evidence) -> list[ReportPoint]:
    """Return every model with its scores and its place towards the front."""
    measured = evidence.measured
    front = non_dominated(measured.scores)
    probability = evidence.probability(non_dominated)
    return [
        ReportPoint(
            id=model.id,
            kind=model.kind,
            weights=dict(model.weights),
            lam=model.lam,
            mu=None if model.mu is None else dict(model.mu),
            scores=scores,
            measures=dict(model.measures),
            on_front=bool(front[row]),
            front_probability=None if probability is None else float(probability[row]),
            dominated_by=None if front[row] else _beaten_by(measured, row),
        )
        for row, (model, scores) in enumerate(zip(measured.models, evidence.scores, strict=True))
    ]


def volumes(evidence: Evidence, reference: Floats) -> dict[str, Volume]:
    """Return the figures of each group of points; hypervolumes above the shared reference point."""
    measured = evidence.measured
    groups = {name: measured.rows(*kinds) for name, kinds in GROUPS.items()}
    if groups["morl"] and (corners := measured.corners()):
        groups = {**groups, MORL_FRONT: [*groups["morl"], *corners]}
    return {name: _volume(evidence, reference, rows) for name, rows in groups.items() if rows}


def _volume(evidence: Evidence, reference: Floats, rows: list[int]) -> Volume:
    measured = evidence.measured
    low, ideal = measured.scores.min(axis=0), measured.scores.max(axis=0)
    volume = evidence.estimate(lambda draws: hypervolumes(draws[:, rows], reference), within=(0.0, np.inf))
    shares = scaled(measured.scores[rows], low, ideal)
    return Volume(
        value=volume.value,
        stderr=volume.stderr,
        interval=volume.interval,
        reference_point=dict(zip(measured.rewards, turned(reference, measured.signs).tolist(), strict=True)),
        points=[measured.models[row].id for row in rows],
        area_over_curve=area_over_curve(measured.scores[rows], reference, ideal),
        sparsity=sparsity(shares),
        spacing=spacing(shares),
    )


def preference_fit(measured: Measured) -> float | None:
    """Return the mean inner product of the soups' weights, read as a preference, with their scores."""
    rows, weights = _weights_by_reward(measured)
    return mean_inner_product(measured.scores[rows], weights) if rows else None


def controllabilities(measured: Measured) -> dict[str, float | None]:
    """Return for each reward the rank correlation of its expert's weight and its score, over soups and experts."""
    rows, weights = _weights_by_reward(measured)
    return {
        name: controllability(weights[:, column], measured.scores[rows, column]) if rows else None
        for column, name in enumerate(measured.rewards)
    }


def _weights_by_reward(measured: Measured) -> tuple[list[int], Floats]:
    """Return the soups and experts made of the rewards' experts only, and their weights (rows, rewards)."""
    names = [measured.experts[name] for name in measured.rewards if name in measured.experts]
    rows = [row for row in measured.rows("soup", "expert") if measured.models[row].weights]
    if len(names) < len(measured.rewards):
        return [], np.zeros((0, len(measured.rewards)))
    rows = [row for row in rows if {n for n, weight in measured.models[row].weights.items() if weight} <= set(names)]
    return rows, measured.weights(rows, names)


def _beaten_by(measured: Measured, row: int) -> str:
    """Return the model that beats this one by most, on scaled rewards."""
    scores = measured.scores
    better = np.flatnonzero(dominates(scores, scores[[row]])[:, 0])
    margins = scaled(scores[better], scores.min(axis=0), scores.max(axis=0)).sum(axis=1)
    return measured.models[int(better[np.argmax(margins)])].id
