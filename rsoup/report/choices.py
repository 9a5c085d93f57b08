"""Models chosen for a preference, within bounds or at the knee, each with the command that makes it.

All functions take gains (``Measured.as_gains``); what they return for a report is in the rewards' own sign.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np

from rsoup.errors import ResultsError
from rsoup.mixing.checkpoints import RULES
from rsoup.pareto.choice import best_at_least, best_for, halves, knee, nearest, regret, simplex_lattice
from rsoup.pareto.direction import turned
from rsoup.pareto.dominance import Floats
from rsoup.report.clicks import Clicks, as_measured, preference_of
from rsoup.report.evidence import Evidence
from rsoup.report.measured import Measured, weights_id
from rsoup.report.options import Options
from rsoup.report.schema import Choice, Estimate, Preference, Rule

LATTICE_STEPS = {1: 1, 2: 10, 3: 5, 4: 4}  # preferences shown, by number of rewards; 2 beyond


def choose(evidence: Evidence, options: Options) -> list[Choice]:
    """Return the models that the options ask for."""
    choices = [choice for mu in options.prefer for choice in _preferred(evidence, mu, options.seed)]
    if options.at_least or options.at_most:
        choices.append(_constrained(evidence, options))
    if options.clicks is not None:
        choices.append(_looked(evidence, options.clicks))
    if options.knee:
        candidates = _candidates(evidence.measured)
        row = candidates[knee(evidence.measured.scores[candidates])]
        what = _word(evidence.measured)
        words = f"The measured {what} farthest beyond the line between the front's extremes, on scaled rewards."
        choices.append(_choice(evidence, "knee", {}, row, words))
    return choices


def preferences(measured: Measured) -> list[Preference]:
    """Return the best measured soup for every preference of a lattice."""
    candidates = measured.rows("soup", "expert") or measured.rows("model")
    if not candidates:
        return []
    lattice = simplex_lattice(len(measured.rewards), LATTICE_STEPS.get(len(measured.rewards), 2))
    return [_preference(measured, candidates[best_for(measured.scores[candidates], mu)], mu) for mu in lattice]


def mix_command(measured: Measured, weights: Mapping[str, float]) -> str:
    """Return the ``rsoup mix`` command that makes the soup of these weights."""
    parts = {name: weight for name, weight in weights.items() if weight}
    if not parts:
        return "# The weights of this point are not known: no command makes it."
    rule = RULES.get(measured.method or "")  # of whole models, whose first gives tokenizer and dtypes at any weight
    parts = dict(weights) if rule else parts
    words = ["rsoup", "mix", *(measured.adapters.get(name, name) for name in parts)]
    for weight in parts.values():
        words += ["-w", f"{weight:.10g}"]
    rest = 1 - sum(parts.values())
    if abs(rest) > 1e-6 and measured.method is not None:  # an evaluation gives the base what the adapters leave
        words += ["--base-weight", f"{rest:.10g}"]
        rest = 0.0 if rest > 0 else rest
    if min(parts.values(), default=0.0) < 0 or abs(rest) > 1e-6:
        words.append("--allow-extrapolation")
    if not rule and len({measured.starts[name] for name in parts if name in measured.starts}) > 1:
        words.append("--allow-different-starts")
    if measured.method is not None:
        words += ["--method", measured.method]
    if rule and (rule.base == "needed" or "--base-weight" in words):
        words += ["--base", str(measured.sources[0].about["base model"])]
    return shlex.join([*words, "-o", weights_id("soup", weights)])


def _preference(measured: Measured, row: int, mu: Floats) -> Preference:
    model = measured.models[row]
    by_reward = dict(zip(measured.rewards, mu.tolist(), strict=True))
    return Preference(mu=by_reward, id=model.id, weights=dict(model.weights), lam=model.lam)


def _candidates(measured: Measured) -> list[int]:
    """Return the soups and experts; models that nothing is known of, where there are none."""
    rows = measured.rows("soup", "expert") or measured.rows("model")
    if not rows:
        raise ResultsError("There is no soup or expert to choose from.", "Evaluate soups, or leave the choice out.")
    return rows


def _preferred(evidence: Evidence, mu: Mapping[str, float], seed: int) -> list[Choice]:
    """Choose by both rules of the paper: the best of a validation split, then lambda = mu."""
    measured = evidence.measured
    candidates = _candidates(measured)
    vector = measured.vector(mu)
    samples = _by_prompt(measured)
    if samples is None:
        row = candidates[best_for(measured.scores[candidates], vector)]
        words = (
            f"Best measured {_word(measured)} for the weighted score; "
            "without single scores it cannot be judged on other prompts."
        )
        best = _choice(evidence, "validation", mu, row, words)
        return [best, *_as_weights(evidence, mu, candidates, row, seed)]
    validation, _ = halves(len(samples), seed)
    row = candidates[best_for(samples[validation].mean(axis=0)[candidates], vector)]
    lost = _regret(samples, candidates, row, vector, seed)
    words = (
        f"Best soup for the weighted score on {len(validation)} validation prompts; on the other half {_lost(lost)}."
    )
    best = _choice(evidence, "validation", mu, row, words, regret=lost)
    return [best, *_as_weights(evidence, mu, candidates, row, seed)]


def _as_weights(
    evidence: Evidence, mu: Mapping[str, float], candidates: list[int], best: int, seed: int
) -> list[Choice]:
    """Take the preference for the weights, where each preferred reward has its expert; ``best`` is validation's."""
    measured = evidence.measured
    if not all(name in measured.experts for name, weight in mu.items() if weight):
        return []
    names = list(dict.fromkeys(measured.experts.values()))
    weights = {
        measured.experts[name]: float(mu.get(name, 0.0)) for name in measured.rewards if name in measured.experts
    }
    made_of = [row for row in candidates if measured.models[row].weights]
    if not made_of:
        return []
    row = made_of[nearest(measured.weights(made_of, names), np.array([weights.get(name, 0.0) for name in names]))]
    samples = _by_prompt(measured)
    lost = None if samples is None else _regret(samples, candidates, row, measured.vector(mu), seed)
    exact = all(abs(measured.models[row].weights.get(name, 0.0) - weights.get(name, 0.0)) < 1e-6 for name in names)
    model = measured.models[row]
    words = "Weights = mu"
    if not exact:
        words += f"; the scores are those of the nearest measured soup, {model.id}"
    elif row == best:
        words += ", the same mix"
    words += "." if lost is None else f". On the prompts not used for validation {_lost(lost)}."
    return [_choice(evidence, "lambda = mu", mu, row, words, weights=weights, regret=lost)]


def _constrained(evidence: Evidence, options: Options) -> Choice:
    """Choose the best soup whose means keep every bound."""
    gains = evidence.measured
    candidates = _candidates(gains)
    bounds = {**options.at_least, **options.at_most}
    floors = np.where([name in bounds for name in gains.rewards], turned(gains.vector(bounds), gains.signs), -np.inf)
    row = best_at_least(gains.scores[candidates], floors, _aim(gains, options))
    if row is None:
        raise _unreached(gains, candidates, floors, options)
    row = candidates[row]
    sure = evidence.probability(lambda scores: np.all(scores[[row]] >= floors, axis=1))
    words = f"Best measured {_word(gains)} with {_listed(options)}"
    words += "." if sure is None else f"; this holds in {float(sure[0]):.0%} of the draws."
    probability = None if sure is None else float(sure[0])
    rule: Rule = "bounds" if options.at_least and options.at_most else "at least" if options.at_least else "at most"
    return _choice(evidence, rule, bounds, row, words, probability=probability)


def _looked(evidence: Evidence, clicks: Clicks) -> Choice:
    """Choose by the preference that choices between pairs of answers show."""
    gains = evidence.measured
    candidates = _candidates(gains)
    found = preference_of(clicks, gains, candidates)
    mu = dict(zip(gains.rewards, found.mu.tolist(), strict=True))
    intervals = {
        name: (float(low), float(high)) for name, low, high in zip(gains.rewards, *found.interval, strict=True)
    }
    told = ", ".join(f"{name} {mu[name]:.2f} [{low:.2f}, {high:.2f}]" for name, (low, high) in intervals.items())
    raw = ",".join(f"{name}={weight:.3g}" for name, weight in as_measured(mu, gains).items())
    words = (
        f"By {found.choices} choices the rewards count {told}, each scaled to 0-1 (for scores as measured: "
        f"{raw}); that agrees with {found.agreeing} of {found.decided} decided choices. "
    )
    words += "" if found.known else "The preference is not known yet: choose more pairs. "
    words += f"With probability {found.sure:.0%} no other {_word(gains)} is better for it by more than 0.05."
    return _choice(evidence, "choices", mu, candidates[found.best], words, probability=found.sure, intervals=intervals)


def _unreached(gains: Measured, candidates: list[int], floors: Floats, options: Options) -> ResultsError:
    """Name the soup that misses the bounds by least: by the largest part of a reward's range that it lacks."""
    columns = np.flatnonzero(np.isfinite(floors))
    own = gains.scores[np.ix_(np.array(candidates), columns)]
    span = np.ptp(own, axis=0)
    missing = np.maximum(floors[columns] - own, 0) / np.where(span > 0, span, 1.0)
    nearest_row = int(missing.max(axis=1).argmin())
    scores = turned(own[nearest_row], gains.signs[columns])
    found = ", ".join(f"{gains.rewards[column]} {score:.6g}" for column, score in zip(columns, scores, strict=True))
    flags = " and ".join(flag for flag, given in _bounds(options).items() if given)
    return ResultsError(
        f"{flags}: no {_word(gains)} reaches {_listed(options)}; "
        f"the nearest point, {gains.models[candidates[nearest_row]].id}, has {found}.",
        "Ask for less, or evaluate more soups.",
    )


def _aim(measured: Measured, options: Options) -> Floats:
    """Return what to raise within the bounds: the first preference, or the rewards without one, equally scaled."""
    if options.prefer:
        return measured.vector(options.prefer[0])
    span = np.ptp(measured.scores, axis=0)
    free = np.array([name not in options.at_least and name not in options.at_most for name in measured.rewards])
    wanted = free if free.any() else np.ones_like(free)
    return np.where(wanted & (span > 0), 1 / np.where(span > 0, span, 1.0), 0.0)


def _choice(
    evidence: Evidence,
    rule: Rule,
    asked: Mapping[str, float],
    row: int,
    words: str,
    *,
    weights: Mapping[str, float] | None = None,
    regret: Estimate | None = None,
    probability: float | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Choice:
    """Return a choice; its scores are those of the measured model in ``row``."""
    measured = evidence.measured
    model = measured.models[row]
    weights = measured.in_order(model.weights if weights is None else weights)
    own = weights == dict(model.weights)
    return Choice(
        rule=rule,
        asked=dict(asked),
        weights=weights,
        lam=model.lam if own else _lambda(measured, weights),
        nearest=model.id,
        scores=evidence.scores[row],
        regret=regret,
        probability=probability,
        intervals=None if intervals is None else dict(intervals),
        folder=weights_id("soup", weights),
        command=mix_command(measured, weights),
        words=words,
    )


def _lambda(measured: Measured, weights: Mapping[str, float]) -> float | None:
    """Return the weight of the expert at lambda = 1, where the soups lie on one line."""
    ends = [model.weights for model in measured.models if model.lam == 1.0 and model.kind in ("soup", "expert")]
    far = [name for name, weight in ends[0].items() if weight] if ends else []
    return weights.get(far[0], 0.0) if len(far) == 1 and len(measured.rewards) == 2 else None


def _by_prompt(measured: Measured) -> Floats | None:
    """Return (prompts, models, rewards), averaged over seeds; None where single scores are unknown."""
    if measured.samples is None or measured.samples.shape[1] < 4:
        return None
    averaged: Floats = measured.samples.mean(axis=0)
    return averaged


def _regret(samples: Floats, candidates: list[int], row: int, mu: Floats, seed: int) -> Estimate:
    """Judge a choice on the half of the prompts that validation did not use."""
    _, other = halves(len(samples), seed)
    lost = regret(samples[other][:, candidates], mu, candidates.index(row))
    return Estimate(value=lost.value, stderr=lost.stderr)


def _lost(lost: Estimate) -> str:
    if lost.value <= 0:
        return "no soup does better"
    error = "" if lost.stderr is None else f" (standard error {lost.stderr:.2g})"
    return f"the best soup has {lost.value:.3g} more{error}"


def _bounds(options: Options) -> dict[str, Mapping[str, float]]:
    return {"--at-least": options.at_least, "--at-most": options.at_most}


def _listed(options: Options) -> str:
    floors = [f"{name} >= {floor:.10g}" for name, floor in options.at_least.items()]
    return ", ".join([*floors, *(f"{name} <= {ceiling:.10g}" for name, ceiling in options.at_most.items())])


def _word(measured: Measured) -> str:
    """Return what the models to choose from are called."""
    return "soup" if measured.rows("soup", "expert") else "model"
