"""The verdicts on the paper's claims: right about as often as they say, over all points and runs at once."""

from __future__ import annotations

import numpy as np
import pytest

from rsoup.report.evidence import gather
from rsoup.report.hypotheses import compare, coverage_hypothesis
from rsoup.report.measured import Measured, Model

RUNS = 11


def soups_and_runs(generator, seeds: int, prompts: int, lead: float) -> Measured:
    """Return a line of soups, and runs that are ``lead`` better than the best soup for the preference of each."""
    shares = np.linspace(0, 1, RUNS)
    soups = np.stack([np.sin(shares * np.pi / 2), np.cos(shares * np.pi / 2)], axis=1)
    mus = np.stack([shares, 1 - shares], axis=1)
    runs = soups[np.argmax(mus @ soups.T, axis=1)] + lead
    samples = np.concatenate([soups, runs]) + generator.normal(0, 0.25, (seeds, prompts, 2 * RUNS, 2))
    models = [Model(f"s{row}", "soup", {"a": share, "b": 1 - share}) for row, share in enumerate(shares)]
    models += [Model(f"m{row}", "morl", {}, None, {"a": mu[0], "b": mu[1]}) for row, mu in enumerate(mus)]
    return Measured(("a", "b"), tuple(models), samples.mean(axis=(0, 1)), (), samples)


@pytest.mark.parametrize(("seeds", "prompts"), [(1, 64), (3, 30)])
def test_morl_runs_as_good_as_the_soups_seldom_fail_the_claim_by_chance(seeds, prompts):
    generator, verdicts = np.random.default_rng(4), []
    for trial in range(80):
        evidence = gather(soups_and_runs(generator, seeds, prompts, 0.0), 200, trial)
        verdicts.append(coverage_hypothesis(compare(evidence, np.zeros(2))).verdict)
    assert verdicts.count("fails") / len(verdicts) < 0.12
    assert verdicts.count("holds within error") > 40


def test_runs_that_are_clearly_better_fail_it_and_are_counted():
    comparison = compare(gather(soups_and_runs(np.random.default_rng(4), 1, 64, 0.3), 200, 0), np.zeros(2))
    assert comparison is not None
    assert [run.verdict for run in comparison.runs] == ["fails"] * RUNS
    found = coverage_hypothesis(comparison)
    assert found.words.startswith(f"{RUNS} of {RUNS} MORL runs beat every soup on their own preference")
