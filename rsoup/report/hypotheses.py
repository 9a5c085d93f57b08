"""The paper's two claims: mixes do as well as the line between their experts; soups do as well as MORL runs."""

from __future__ import annotations

import numpy as np
from scipy import special

from rsoup.pareto.bootstrap import LEVEL, simultaneous_reach
from rsoup.pareto.choice import best_for
from rsoup.pareto.dominance import Floats, weakly_dominates
from rsoup.pareto.dominance import dominates as dominates_matrix
from rsoup.pareto.indicators import additive_epsilon, coverage, hypervolumes, scaled
from rsoup.pareto.lmc import lmc_gap, on_simplex
from rsoup.report.evidence import Evidence, Linear
from rsoup.report.measured import Measured, Model
from rsoup.report.schema import Against, Comparison, Estimate, Gap, Hypothesis, Lmc, MorlRun, Verdict

LMC_CLAIM = "Linear mode connectivity: a mix does at least as well as the mix of its experts' scores, on every reward."
COVERAGE_CLAIM = "Pareto coverage: for each preference a soup does at least as well as the MORL run trained for it."
TOLD = 3  # rewards of which a sentence speaks


def lmc(evidence: Evidence) -> dict[str, Lmc]:
    """Return the gap of every mix whose experts were measured, by reward."""
    measured = evidence.measured
    alone = measured.ingredients()
    names = list(alone)
    rows = [row for row in measured.rows("soup", "expert") if _is_mix_of(measured.models[row], names)]
    weights = measured.weights(rows, names)
    keep = on_simplex(weights) if rows else np.zeros(0, dtype=bool)
    rows, weights = [row for row, kept in zip(rows, keep, strict=True) if kept], weights[keep] if rows else weights
    if not rows:
        return {}
    experts = [alone[name] for name in names]
    gaps = evidence.linear(lambda scores: lmc_gap(scores[..., rows, :], weights, scores[..., experts, :]))
    reach = _reach(gaps)
    return {
        name: _lmc(
            [
                _gap(measured.models[row], evidence.told(name, gaps.at(place, column)), sign)
                for place, row in enumerate(rows)
            ],
            reach,
            sign,
            measured,
        )
        for column, (name, sign) in enumerate(zip(measured.rewards, measured.signs.tolist(), strict=True))
    }


def lmc_hypothesis(by_reward: dict[str, Lmc]) -> Hypothesis:
    """Say in words whether every mix lies above the line."""
    if all(own.minimum is None for own in by_reward.values()):
        return Hypothesis(claim=LMC_CLAIM, verdict="unknown", words="No mix was measured together with its experts.")
    verdict = _worst([own.verdict for own in by_reward.values()])
    told = {name: own.shortfall for name, own in by_reward.items() if own.shortfall and own.verdict == verdict}
    if verdict == "holds":
        words = "No mix does worse than the line between its experts on any reward."
    elif verdict == "holds within error":
        words = f"{_shortfalls(told)}, which chance explains (95 %, all gaps at once)."
    else:
        unknown = all(gap.stderr is None for gap in told.values())
        words = _shortfalls(told) + ("; no error is known." if unknown else ".")
    return Hypothesis(claim=LMC_CLAIM, verdict=verdict, words=words)


def compare(evidence: Evidence, reference: Floats) -> Comparison | None:
    """Compare soups and experts with the MORL runs; None where either is missing."""
    measured = evidence.measured
    soups, runs = measured.rows("soup", "expert"), measured.rows("morl")
    if not soups or not runs:
        return None
    corners = measured.corners()
    whole = _against(evidence, soups, [*runs, *corners], reference)
    alone = _against(evidence, soups, runs, reference) if corners else whole
    return Comparison(
        **whole.model_dump(),
        runs_alone=alone,
        corners=[measured.models[row].id for row in corners],
        trainings={"soup": len(measured.trainings(soups)), "morl": len(runs), "corners": len(corners)},
        runs=_runs(evidence, soups, runs),
    )


def _against(evidence: Evidence, soups: list[int], runs: list[int], reference: Floats) -> Against:
    """Compare the front of the soups with that of some MORL runs."""
    scores = evidence.measured.scores
    shares = scaled(scores, scores.min(axis=0), scores.max(axis=0))
    share = evidence.estimate(
        lambda draws: _volume_shares(draws[:, soups], draws[:, runs], reference), within=(0.0, 1.0)
    )
    return Against(
        hypervolume_ratio=_as_ratio(share),
        epsilon_soup_covers_morl=additive_epsilon(shares[soups], shares[runs]),
        epsilon_morl_covers_soup=additive_epsilon(shares[runs], shares[soups]),
        coverage_of_morl_by_soup=coverage(shares[soups], shares[runs]),
        coverage_of_soup_by_morl=coverage(shares[runs], shares[soups]),
    )


def coverage_hypothesis(comparison: Comparison | None) -> Hypothesis:
    """Say in words whether a soup serves every preference as well as the MORL run trained for it."""
    if comparison is None:
        return Hypothesis(claim=COVERAGE_CLAIM, verdict="unknown", words="No MORL run was measured beside soups.")
    runs = comparison.runs
    verdicts = [run.verdict for run in runs]
    verdict = _worst(verdicts)
    beaten = sum(bool(run.dominated_by) for run in runs)
    unknown = sum(run.difference is None for run in runs)
    if verdict == "fails":
        words = f"{verdicts.count('fails')} of {len(runs)} MORL runs beat every soup on their own preference"
        words = words if not unknown else f"{verdicts.count('fails')} of {len(runs)} MORL runs beat the soups"
    elif unknown == len(runs):
        words = "The preferences that the MORL runs were trained for are not known"
    elif verdict == "holds within error":
        words = "On its own preference no MORL run beats the best soup by more than chance explains"
    else:
        words = "No MORL run beats the best soup on the preference it was trained for"
    if 0 < unknown < len(runs):
        words += f"; the preferences of {unknown} are not known"
    words += f"; soups dominate {beaten} of {len(runs)}. Trainings: "
    costs = comparison.trainings
    words += f"{costs['soup']} for the soups, " if costs["soup"] else ""
    beside = " beside the experts, which are its corners" if costs["corners"] else ""
    return Hypothesis(claim=COVERAGE_CLAIM, verdict=verdict, words=f"{words}{costs['morl']} for MORL{beside}.")


def _is_mix_of(model: Model, names: list[str]) -> bool:
    return bool(model.weights) and all(name in names for name, weight in model.weights.items() if weight)


def _gap(model: Model, estimate: Estimate, sign: float) -> Gap:
    return Gap(
        id=model.id,
        lam=model.lam,
        weights=dict(model.weights),
        gap=estimate.value,
        stderr=estimate.stderr,
        interval=estimate.interval,
        exceeds_stderr=sign * estimate.value < -(estimate.stderr or 0.0),
    )


def _reach(figures: Linear) -> float:
    """Return how many standard errors cover all figures at once; without draws, by Bonferroni's bound."""
    if figures.stderr is None:
        return 0.0
    if figures.draws is None or figures.samples is None:
        known = max(int(np.count_nonzero(figures.stderr > 0)), 1)
        return float(special.ndtri(1 - (1 - LEVEL) / 2 / known))
    return simultaneous_reach(figures.draws, figures.value, figures.samples)


def _lmc(gaps: list[Gap], reach: float, sign: float, measured: Measured) -> Lmc:
    """Judge the gaps of one reward; ``sign`` is -1 if mixes above the line are the worse ones."""

    def gain(gap: Gap) -> float:
        return sign * gap.gap

    mixes = [gap for gap in gaps if sum(weight > 0 for weight in gap.weights.values()) > 1]
    rounding = 1e-12 * float(np.abs(measured.scores).max())
    short = [gap for gap in mixes if gain(gap) < -rounding]
    failing = [gap for gap in short if gain(gap) + reach * (gap.stderr or 0.0) < 0]
    verdict: Verdict = "fails" if failing else "holds within error" if short else "holds" if mixes else "unknown"
    shortfall = min(failing or short, key=gain, default=None)
    return Lmc(gaps=gaps, minimum=min(mixes, key=gain, default=None), shortfall=shortfall, verdict=verdict)


def _worst(verdicts: list[Verdict]) -> Verdict:
    order: list[Verdict] = ["fails", "holds within error", "unknown", "holds"]
    return min(verdicts, key=order.index)


def _shortfalls(gaps: dict[str, Gap]) -> str:
    """Say where the gap of each reward lies, of the first few."""
    parts = []
    for name, gap in gaps.items():
        where = f"at lambda {gap.lam:g}" if gap.lam is not None else f"at {gap.id}"
        error = "" if gap.stderr is None else f" (standard error {gap.stderr:.2g})"
        side = "below" if gap.gap < 0 else "above"
        parts.append(f"{where} {name} lies {abs(gap.gap):.3g} {side} the line{error}")
    told = ", ".join(parts[:TOLD]) + (f", and so it is with {len(parts) - TOLD} more" if len(parts) > TOLD else "")
    return told[0].upper() + told[1:]


def _volume_shares(soups: Floats, runs: Floats, reference: Floats) -> Floats:
    """Return the soups' part of both hypervolumes, which stays finite where that of the runs is 0 in a draw."""
    ours = hypervolumes(soups, reference)
    both = ours + hypervolumes(runs, reference)
    return np.where(both > 0, ours / np.where(both > 0, both, 1.0), 0.5)


def _as_ratio(share: Estimate) -> Estimate | None:
    """Return the ratio of soups to runs behind a share; None where it is infinite."""
    if share.value == 1:
        return None
    low, high = share.interval or (1.0, 1.0)
    interval = (low / (1 - low), high / (1 - high)) if high < 1 else None
    return Estimate(value=share.value / (1 - share.value), interval=interval)


def _runs(evidence: Evidence, soups: list[int], rows: list[int]) -> list[MorlRun]:
    """Compare each MORL run with the soups, and with the best of them for the preference it was trained for."""
    measured = evidence.measured
    scores, models = measured.scores, measured.models
    mus = {row: measured.vector(mu) for row in rows if (mu := models[row].mu) is not None}
    best = {row: soups[best_for(scores[soups], mu)] for row, mu in mus.items()}
    runs, rivals, weights = list(mus), list(best.values()), np.array(list(mus.values()))
    lost = None
    if runs:
        lost = evidence.linear(lambda own: np.sum((own[..., rivals, :] - own[..., runs, :]) * weights, axis=-1))
    reach = 0.0 if lost is None else _reach(lost)
    sure = evidence.probability(lambda draw: np.asarray(weakly_dominates(draw[soups], draw[rows]).any(axis=0)))
    found = []
    for place, row in enumerate(rows):
        beaten = dominates_matrix(scores[soups], scores[[row]])[:, 0]
        reached = weakly_dominates(scores[soups], scores[[row]]).any()
        beats = dominates_matrix(scores[[row]], scores[soups])[0]
        difference = None if lost is None or row not in mus else lost.at(runs.index(row))
        found.append(
            MorlRun(
                id=models[row].id,
                mu=None if row not in mus else dict(models[row].mu or {}),
                best_soup=None if row not in best else models[best[row]].id,
                difference=difference,
                verdict=_run_verdict(difference, reach, reached=bool(reached), beats=bool(beats.any())),
                dominated_by=[models[soup].id for soup, mark in zip(soups, beaten, strict=True) if mark],
                dominates=[models[soup].id for soup, mark in zip(soups, beats, strict=True) if mark],
                dominated_probability=None if sure is None else float(sure[place]),
            )
        )
    return found


def _run_verdict(difference: Estimate | None, reach: float, *, reached: bool, beats: bool) -> Verdict:
    """Judge by mu . R where the preference is known, all runs at once; else by weak dominance."""
    if difference is None:
        return "holds" if reached else "fails" if beats else "unknown"
    if difference.value >= 0:
        return "holds"
    return "fails" if difference.value + reach * (difference.stderr or 0.0) < 0 else "holds within error"
