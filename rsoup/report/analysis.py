"""From measured scores and options to every figure of a report."""

from __future__ import annotations

import numpy as np

from rsoup import __version__
from rsoup.pareto.direction import turned
from rsoup.pareto.dominance import Floats
from rsoup.pareto.indicators import is_exact
from rsoup.report.checks import Figures, check
from rsoup.report.choices import choose, preferences
from rsoup.report.costs import equal_cost_hypothesis, fronts_at_cost
from rsoup.report.evidence import Evidence, gather
from rsoup.report.fronts import controllabilities, preference_fit, report_points, volumes
from rsoup.report.hypotheses import compare, coverage_hypothesis, lmc, lmc_hypothesis
from rsoup.report.measured import Measured
from rsoup.report.options import Options
from rsoup.report.schema import Made, Report

WORST = "the worst score on each reward over everything compared, no margin"


def analyse(measured: Measured, options: Options) -> Report:
    """Return the report on measured scores; refuses options that do not fit them."""
    options.check_rewards(measured.rewards, measured.minimized)
    evidence = gather(measured.as_gains(), options.draws, options.seed)
    gains = evidence.measured
    reference = _reference_point(gains, options)
    points = report_points(evidence)
    by_reward = lmc(evidence)
    comparison = compare(evidence, reference)
    own_volumes, choices = volumes(evidence, reference), choose(evidence, options)
    figures = Figures(own_volumes, by_reward, comparison)
    return Report(
        rewards=list(measured.rewards),
        directions={name: "minimize" if name in measured.minimized else "maximize" for name in measured.rewards},
        points=points,
        front=[point.id for point in points if point.on_front],
        reference_rule="given" if options.reference else WORST,
        hypervolume=own_volumes,
        mean_inner_product=preference_fit(gains),
        controllability=controllabilities(gains),
        comparison=comparison,
        fronts=fronts_at_cost(evidence, reference),
        lmc=by_reward,
        hypotheses={
            "lmc": lmc_hypothesis(by_reward),
            "coverage": coverage_hypothesis(comparison),
            "equal_cost": equal_cost_hypothesis(evidence, reference),
        },
        preferences=preferences(gains),
        choices=choices,
        checks=check(evidence, choices, figures, options.fail_if),
        experts=dict(measured.experts),
        adapters=dict(measured.adapters),
        starts=dict(measured.starts),
        method=measured.method,
        bootstrap=evidence.settings,
        notes=[*measured.notes, *_notes(evidence)],
        made_from=[Made(path=own.path, sha256=own.sha256, about=dict(own.about)) for own in measured.sources],
        rsoup=__version__,
    )


def _reference_point(gains: Measured, options: Options) -> Floats:
    if options.reference:
        return turned(gains.vector(options.reference), gains.signs)
    worst: Floats = np.min(gains.scores, axis=0)
    return worst


def _notes(evidence: Evidence) -> list[str]:
    """Say what the intervals cover, or why there are none, and which figures are not exact."""
    measured = evidence.measured
    notes = [_about_intervals(evidence)]
    if not is_exact(*measured.scores.shape):
        notes.append(f"Hypervolumes of {len(measured.rewards)} rewards are approximate, to a few per cent.")
    if measured.bare:
        told = [name for name in measured.rewards if name in measured.bare]
        which = f"{' and '.join(told)} {'is' if len(told) == 1 else 'are'}"
        notes.append(f"{which} known by the means alone: without intervals, and taken as exact in all others.")
    if evidence.settings is not None and evidence.settings.prompts > 1 and _any_constant(measured):
        notes.append("Some scores are the same on every prompt: their intervals have no width, whatever others show.")
    return notes


def _any_constant(measured: Measured) -> bool:
    if measured.samples is None:
        return False
    sampled = [name not in measured.bare for name in measured.rewards]
    return bool((np.ptp(measured.samples[..., sampled], axis=(0, 1)) == 0).any())


def _about_intervals(evidence: Evidence) -> str:
    if evidence.settings is None:
        told = "" if evidence.measured.stderr is None else " The standard errors are those of the input."
        return f"The input holds means without single scores: this report has no intervals.{told}"
    seeds, prompts = evidence.settings.seeds, evidence.settings.prompts
    documents = [f"{count} documents of {name}" for name, count in evidence.measured.documents.items()]
    if seeds == 1:
        told = _listed([f"prompts ({prompts})", *documents])
        return f"Intervals cover the choice of {told}, not the training seed: there is one."
    about = _listed([f"{seeds} seeds", *([f"{prompts} prompts"] if prompts > 1 else []), *documents])
    return f"Intervals cover {about}" + ("; with so few seeds they are rough." if seeds < 5 else ".")


def _listed(parts: list[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1))
