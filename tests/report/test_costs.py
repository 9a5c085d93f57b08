"""Fronts at their cost, and the verdict on the soups at equal cost, on scores with costs worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rsoup.pareto.indicators import hypervolume, hypervolumes
from rsoup.report.analysis import analyse
from rsoup.report.costs import equal_cost_hypothesis, fronts_at_cost
from rsoup.report.evidence import gather
from rsoup.report.hypotheses import compare
from rsoup.report.measured import Measured, Model, Source, Spent
from rsoup.report.options import Options

ORIGIN = np.zeros(2)
SCORES = {
    "a": (4.0, 1.0),
    "soup": (3.0, 3.0),
    "b": (1.0, 4.0),
    "run": (3.5, 2.0),
    "other": (2.0, 3.5),
    "a@2": (3.0, 1.0),
    "run@2": (3.2, 3.2),
    "mod": (3.0, 2.0),
}
"""Their hypervolumes above the origin are below, worked out by hand."""
SOUPS = 4 * 1 + 3 * 2 + 1 * 1
BEST_PAIR = 3.5 * 2 + 2 * 1.5  # run and other
MORL = 4 * 1 + 3.5 * 1 + 2 * 1.5 + 1 * 0.5
EARLY = 3.2 * 3.2


def measured(steps: int = 10, noise: float = 0.0, **scores: tuple[float, float]) -> Measured:
    """Return experts, a soup, two runs and what they were like early on; every training took ``steps``."""
    values = {**SCORES, **scores}
    models = (
        Model("a", "expert", {"a": 1.0, "b": 0.0}, 0.0),
        Model("soup", "soup", {"a": 0.5, "b": 0.5}, 0.5),
        Model("b", "expert", {"a": 0.0, "b": 1.0}, 1.0),
        Model("run", "morl", {"run": 1.0}, None, {"one": 0.6, "two": 0.4}),
        Model("other", "morl", {"other": 1.0}, None, {"one": 0.4, "two": 0.6}),
        Model("a@2", "mix", {"a@2": 1.0}),
        Model("run@2", "mix", {"run@2": 1.0}),
        Model("mod", "mod", {"a": 0.5, "b": 0.5}),
    )
    rows = np.array([values[model.id] for model in models])
    samples = rows + np.random.default_rng(0).normal(0, noise, (2, 50, *rows.shape)) if noise else None
    spent = {name: Spent(steps, 100.0 * steps, 6.0 * steps) for name in ("a", "b", "run", "other")}
    spent |= {name: Spent(0.3 * steps, 30.0 * steps, 1.8 * steps) for name in ("a@2", "run@2")}
    return Measured(
        ("one", "two"),
        models,
        rows if samples is None else samples.mean(axis=(0, 1)),
        (Source("points.csv", "00"),),
        samples,
        experts={"one": "a", "two": "b"},
        fronts={"early": ("a@2", "run@2")},
        spent=spent,
    )


def test_each_front_costs_what_the_trainings_of_its_points_took():
    fronts = {front.name: front for front in fronts_at_cost(gather(measured(), 100, 0), ORIGIN)}
    assert list(fronts) == ["soups", "MORL, 1 of 4", "MORL, 2 of 4", "MORL, 3 of 4", "MORL", "early", "mod"]
    assert {name: front.cost.optimizer_steps for name, front in fronts.items() if front.cost} == {
        "soups": 20,
        "MORL, 1 of 4": 10,
        "MORL, 2 of 4": 20,
        "MORL, 3 of 4": 30,
        "MORL": 40,
        "early": 6,
        "mod": 20,
    }
    assert (fronts["MORL"].cost.tokens, fronts["MORL"].cost.seconds) == (4000, 240)
    assert [fronts[name].passes for name in ("soups", "mod")] == [1, 2]


def test_the_hypervolumes_are_those_worked_out_by_hand_and_experts_are_corners():
    fronts = {front.name: front for front in fronts_at_cost(gather(measured(), 100, 0), ORIGIN)}
    assert fronts["soups"].hypervolume.value == pytest.approx(SOUPS)
    assert sorted(fronts["MORL, 2 of 4"].points) == ["other", "run"]
    assert fronts["MORL, 2 of 4"].hypervolume.value == pytest.approx(BEST_PAIR)
    assert fronts["MORL"].hypervolume.value == pytest.approx(MORL)
    assert fronts["MORL"].soups_lead.value == pytest.approx(SOUPS - MORL)
    assert fronts["early"].hypervolume.value == pytest.approx(EARLY)
    assert fronts["soups"].soups_lead is None


def test_ratios_compare_whole_fronts_and_the_runs_alone():
    comparison = compare(gather(measured(), 100, 0), ORIGIN)
    assert comparison.corners == ["a", "b"]
    assert comparison.hypervolume_ratio.value == pytest.approx(SOUPS / MORL)
    assert comparison.runs_alone.hypervolume_ratio.value == pytest.approx(SOUPS / BEST_PAIR)
    assert comparison.coverage_of_morl_by_soup == 0.5  # the experts, which are points of both
    assert comparison.runs_alone.coverage_of_morl_by_soup == 0
    assert comparison.trainings == {"soup": 2, "morl": 2, "corners": 2}


def test_a_corner_that_has_a_run_of_its_own_is_not_taken_twice():
    own = measured()
    models = [replace(m, mu={"one": 1.0, "two": 0.0}) if m.id == "run" else m for m in own.models]
    assert [models[row].id for row in replace(own, models=tuple(models)).corners()] == ["b"]


@pytest.mark.parametrize(
    ("scores", "verdict", "told"),
    [
        ({}, "holds", "early (a@2, run@2): it dominates 10.2, the soups 11, a difference of +0.76."),
        ({"run@2": (3.0, 1.0)}, "holds", "2 of 4 runs (run, other): it dominates 10, the soups 11"),
        ({"run": (3.5, 3.5)}, "fails", "2 of 4 runs"),  # the best pair of full trainings
        ({"run@2": (3.5, 3.5)}, "fails", "early (a@2, run@2)"),  # trainings that were shorter
    ],
)
def test_at_equal_cost_soups_are_set_against_the_best_that_morl_runs_can_do(scores, verdict, told):
    found = equal_cost_hypothesis(gather(measured(**scores), 100, 0), ORIGIN)
    assert found.verdict == verdict
    assert "For the soups' 20 optimiser steps" in found.words
    assert told in found.words


def test_whole_morl_fronts_that_took_more_do_not_count_at_equal_cost():
    """All four runs dominate 9.76, the soups 9.56; the best two, which took what the soups did, 8.96."""
    scores = {"soup": (2.6, 2.6), "run": (3.6, 1.6), "other": (1.6, 3.6), "run@2": (1.0, 1.0)}
    report = analyse(measured(**scores), Options(reference={"one": 0.0, "two": 0.0}))
    assert report.comparison.hypervolume_ratio.value == pytest.approx(9.56 / 9.76)
    assert report.hypotheses["equal_cost"].verdict == "holds"
    assert "8.96, the soups 9.56, a difference of +0.6." in report.hypotheses["equal_cost"].words


def test_without_costs_trainings_are_counted():
    found = equal_cost_hypothesis(gather(replace(measured(), spent={}), 100, 0), ORIGIN)
    assert found.words.startswith("For the soups' 2 trainings MORL's best front is 2 of 4 runs")
    fronts = fronts_at_cost(gather(replace(measured(), spent={}), 100, 0), ORIGIN)
    assert [front.cost for front in fronts] == [None] * len(fronts)


def test_a_front_as_good_as_the_soups_seldom_fails_them_by_chance():
    """Runs equal to the soups in truth, over repeated draws of seeds and prompts."""
    verdicts = []
    generator = np.random.default_rng(3)
    truth = np.array([(4.0, 1.0), (3.0, 3.0), (1.0, 4.0), (4.0, 1.0), (3.0, 3.0), (1.0, 4.0)])
    models = tuple(Model(f"s{row}", "soup", {"a": 0.5, "b": 0.5}) for row in range(3))
    models += tuple(Model(f"m{row}", "morl", {f"m{row}": 1.0}) for row in range(3))
    spent = {"a": Spent(15, 0, 0), "b": Spent(15, 0, 0), **{f"m{row}": Spent(10, 0, 0) for row in range(3)}}
    for trial in range(60):
        samples = truth + generator.normal(0, 0.6, (3, 30, 6, 2)) + generator.normal(0, 0.1, (3, 1, 6, 2))
        own = Measured(("one", "two"), models, samples.mean(axis=(0, 1)), (), samples, spent=spent)
        verdicts.append(equal_cost_hypothesis(gather(own, 200, trial), ORIGIN).verdict)
    assert verdicts.count("fails") <= 4  # one side of 95 %
    assert verdicts.count("holds within error") > 15


def test_many_hypervolumes_are_those_of_each():
    generator = np.random.default_rng(1)
    for rewards in (1, 2, 3):
        draws = generator.normal(0, 1, (20, 7, rewards)).round(1)  # with ties, and points below the reference
        expected = [hypervolume(scores, np.full(rewards, -0.5)) for scores in draws]
        assert hypervolumes(draws, np.full(rewards, -0.5)) == pytest.approx(expected)
