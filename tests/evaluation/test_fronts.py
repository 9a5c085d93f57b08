"""Fronts beside the soups': which mixes they have, in which weights, and what is measured once for several."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rsoup import experiment
from rsoup.adapters import Adapter
from rsoup.errors import AdapterError, RecipeError
from rsoup.evaluation.fronts import lay_fronts, serving_weights, with_adapters
from rsoup.evaluation.plan import lay_points
from rsoup.evaluation.results import read_results
from rsoup.evaluation.timing import read_trainings
from rsoup.evaluation.trajectory import read_after
from rsoup.mixing import read
from rsoup.progress import Silent
from rsoup.recipe import EvaluationSection, FrontSection
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from tiny import recipe_content

TRAINED = {
    "a": {"a": 1.0},
    "b": {"b": 1.0},
    "morl-0.75-0.25": {"a": 3.0, "b": 1.0},
    "morl-0.25-0.75": {"a": 1.0, "b": 3.0},
    "unknown": {},
}
KINDS = {"a": "expert", "b": "expert", "morl-0.75-0.25": "morl", "morl-0.25-0.75": "morl"}


def laid(front: FrontSection, **settings):
    """Return the points of one front beside those of three lambdas, and those that it adds."""
    section = EvaluationSection(lambdas=3, fronts={"own": front}, **settings)
    before = lay_points(KINDS, section, 0)
    found = lay_fronts(before, TRAINED, section)
    return found, list(found.points[len(before) :])


@pytest.mark.parametrize(
    ("preference", "weights"),
    [((0.5, 0.5), (0.5, 0.5)), ((0.6, 0.4), (0.7, 0.3)), ((0.75, 0.25), (1.0, 0.0)), ((1.0, 0.0), (1.5, -0.5))],
)
def test_two_backbones_serve_a_preference_by_the_weights_worked_out_by_hand(preference, weights):
    """0.75 w + 0.25 (1 - w) = mu, so that w = 2 mu - 0.5."""
    backbones = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert serving_weights(backbones, np.array(preference)) == pytest.approx(weights)


def test_three_backbones_of_a_circulant_matrix():
    """With 0.6 on the diagonal and 0.2 beside it, w = (mu - 0.2) / 0.4."""
    backbones = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    assert serving_weights(backbones, np.array([1.0, 0.0, 0.0])) == pytest.approx([2.0, -0.5, -0.5])
    assert serving_weights(backbones, np.array([0.5, 0.3, 0.2])) == pytest.approx([0.75, 0.25, 0.0])


def test_the_mixture_of_what_was_trained_on_is_the_preference():
    generator = np.random.default_rng(0)
    backbones = generator.dirichlet(np.ones(4), 4)
    for mu in generator.dirichlet(np.ones(4), 10):
        weights = serving_weights(backbones, mu)
        assert weights @ backbones == pytest.approx(mu)
        assert weights.sum() == pytest.approx(1)


def test_a_front_of_preferences_solves_the_weights_of_its_trainings():
    front = FrontSection(of=["morl-0.75-0.25", "morl-0.25-0.75"], preferences=5)
    found, new = laid(front)
    assert found.fronts["own"] == (
        "own-1.50--0.50",
        "morl-0.75-0.25",  # what was trained on 0.75 serves 0.75: the baseline itself
        "own-0.50-0.50",
        "morl-0.25-0.75",
        "own--0.50-1.50",
    )
    assert [point.weights for point in new] == [
        {"morl-0.75-0.25": first, "morl-0.25-0.75": 1 - first} for first in (1.5, 0.5, -0.5)
    ]
    assert {point.kind for point in new} == {"mix"}


@pytest.mark.parametrize(
    ("front", "ids", "added"),
    [
        ({"of": ["a", "b", "morl-0.75-0.25"]}, ("a", "b", "morl-0.75-0.25"), 0),
        ({"of": ["a", "b"], "lambdas": 3}, ("a", "soup-0.50-0.50", "b"), 0),
        ({"of": ["base", "a"], "lambdas": 3}, ("base", "own-0.50-0.50", "a"), 1),
        ({"of": ["base", "a"], "at": [{"base": -0.5, "a": 1.5}, {"a": 1.0}]}, ("own--0.50-1.50", "a"), 1),
        ({"of": ["b", "a"], "lambdas": 3}, ("b", "soup-0.50-0.50", "a"), 0),
        ({"of": ["a", "b"], "after": 4}, ("a@4", "b@4"), 2),
        ({"of": ["a", "base"], "lambdas": 3, "after": 4}, ("a@4", "own-0.50-0.50", "base"), 2),
    ],
)
def test_what_is_a_point_already_is_not_measured_twice(front, ids, added):
    found, new = laid(FrontSection(**front))
    assert sorted(found.fronts["own"]) == sorted(ids)
    assert len(new) == added


def test_the_base_takes_what_the_adapter_leaves():
    _, new = laid(FrontSection(of=["base", "a"], at=[{"base": -0.5, "a": 1.5}]))
    assert (new[0].weights, new[0].base_weight, new[0].lam) == ({"a": 1.5}, -0.5, 1.5)


def test_fronts_of_one_step_share_the_adapters_as_they_were_then():
    fronts = {"one": FrontSection(of=["a", "b"], lambdas=3, after=2), "two": FrontSection(of=["a"], after=2)}
    found = lay_fronts([], TRAINED, EvaluationSection(fronts=fronts))
    assert found.early == {"a@2": ("a", 2), "b@2": ("b", 2)}
    assert found.fronts["two"] == ("a@2",)
    assert len(found.points) == 3


@pytest.mark.parametrize(
    ("front", "told"),
    [
        ({"of": ["c"]}, "there is no adapter 'c'"),
        ({"of": ["a", "unknown"], "preferences": 3}, "what unknown was trained on is not known"),
        ({"of": ["a", "morl-0.75-0.25", "b"], "preferences": 3}, "over 2 rewards"),
        ({"of": ["a", "b", "morl-0.75-0.25"], "lambdas": 3, "extrapolate": 0.5}, "fronts.own.extrapolate"),
    ],
)
def test_a_front_that_cannot_be_laid_out_is_refused(front, told):
    with pytest.raises(RecipeError, match=r"evaluation\.fronts\.own") as refusal:
        laid(FrontSection(**front))
    assert told in refusal.value.message


def test_trainings_that_do_not_tell_rewards_apart_serve_no_preference():
    twins = {"one": {"a": 1.0, "b": 1.0}, "two": {"a": 2.0, "b": 2.0}}
    section = EvaluationSection(fronts={"own": FrontSection(of=["one", "two"], preferences=3)})
    with pytest.raises(RecipeError, match="do not tell the rewards apart"):
        lay_fronts([], twins, section)


def test_a_front_of_adapters_that_were_not_given_is_left_out_and_told():
    fronts = {"kept": FrontSection(of=["a", "base"], lambdas=3), "gone": FrontSection(of=["a", "c"])}
    settings, told = with_adapters(EvaluationSection(fronts=fronts), TRAINED)
    assert list(settings.fronts) == ["kept"]
    assert told == ["The front gone is left out: c is not among the adapters."]


def test_an_adapter_that_was_not_kept_at_that_step_is_refused(tiny_run):
    adapter: Adapter = read(tiny_run / "run/adapters/positive")
    for own in (adapter, replace(adapter, path=None)):
        with pytest.raises(AdapterError, match="as it was after 2 steps") as refusal:
            read_after(own, 2)
        assert "training.save_every: 2" in refusal.value.hint


# A whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model):
    """Run two experts and a baseline whose completions all have six tokens, with three fronts; return its folder."""
    folder = tmp_path_factory.mktemp("fronts")
    content = recipe_content(folder, tiny_model)
    content["training"]["save_every"] = 1
    content["generation"]["stop_at_eos"] = False
    content["evaluation"] |= {
        "lambdas": 2,
        "fronts": {
            "stretched": {"of": ["base", "morl-0.50-0.50"], "at": [{"base": -0.5, "morl-0.50-0.50": 1.5}]},
            "solved": {"of": ["positive", "morl-0.50-0.50"], "preferences": 2},
            "early": {"of": ["positive", "brief"], "lambdas": 3, "after": 1},
        },
    }
    recipe = parse_recipe(content, "tiny")
    experiment.run(resolve(recipe), Silent())
    return recipe


def test_costs_are_the_tokens_that_were_sampled_and_the_optimisers_steps(run):
    """Of 2 prompts x 3 completions x 6 tokens and 2 epochs in each of 3 rounds; early adapters had one round."""
    results = read_results(run.folder)
    costs = {name: adapter.cost for name, adapter in results.adapters.items()}
    assert {name: (cost.optimizer_steps, cost.tokens) for name, cost in costs.items()} == {
        "positive": (6, 108),
        "brief": (6, 108),
        "morl-0.50-0.50": (6, 108),
        "positive@1": (2, 36),
        "brief@1": (2, 36),
    }
    seconds = read_trainings(run.folder / "eval")
    assert 0 < seconds["positive@1"] < seconds["positive"]
    assert results.adapters["positive@1"].kind == "checkpoint"


def test_fronts_are_measured_and_reported_at_their_cost(run):
    results = read_results(run.folder)
    assert {name: front.points for name, front in results.fronts.items()} == {
        "stretched": ("stretched--0.50-1.50",),
        "solved": ("positive", "solved--1.00-2.00"),  # brief alone: twice the half, less what is positive
        "early": ("positive@1", "early-0.50-0.50", "brief@1"),
    }
    report = json.loads((run.folder / "report/pareto.json").read_text())
    fronts = {front["name"]: front for front in report["fronts"]}
    assert {name: (front["trainings"], front["cost"]["tokens"]) for name, front in fronts.items()} == {
        "soups": (["positive", "brief"], 216),
        "MORL, 1 of 3": ([fronts["MORL, 1 of 3"]["points"][0]], 108),
        "MORL, 2 of 3": (fronts["MORL, 2 of 3"]["points"], 216),
        "MORL": (["morl-0.50-0.50", "positive", "brief"], 324),
        "stretched": (["morl-0.50-0.50"], 108),
        "solved": (["positive", "morl-0.50-0.50"], 216),
        "early": (["positive@1", "brief@1"], 72),
    }
    assert (run.folder / "report/cost.png").is_file()
    assert set(report["hypervolume"]["soup"]["points"]) == {"positive", "brief"}


def test_a_stretched_training_is_the_adapter_beyond_its_end(run):
    """The mix with minus a half of the base has one and a half times the update."""
    from rsoup.evaluation.plan import plan_sweep

    plan = plan_sweep(experiment.ingredients_of(run), run.evaluation)
    point = next(point for point in plan.points if point.id == "stretched--0.50-1.50")
    mixed, whole = plan.mixed(point).adapter, read(run.folder / "adapters/morl-0.50-0.50")
    for module, layer in whole.layers.items():
        own = mixed.layers[module]
        assert own.scale * own.up @ own.down == pytest.approx(1.5 * layer.scale * layer.up @ layer.down, rel=1e-5)


def test_the_same_run_again_measures_nothing(run):
    """What is there is found again, of fronts too: the results are the same bytes, and no point is written."""
    results = run.folder / "eval/results.json"
    before = results.read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in (run.folder / "eval/points").rglob("*") if path.is_file()}
    experiment.run(resolve(run), Silent())
    assert results.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_front_of_a_name_that_is_not_trained_stops_before_anything_is_trained(tmp_path, tiny_model):
    content = recipe_content(tmp_path, tiny_model)
    content["evaluation"]["fronts"] = {"own": {"of": ["positve"]}}
    recipe = parse_recipe(content, "tiny")
    with pytest.raises(RecipeError, match="no adapter 'positve'") as refusal:
        experiment.run(resolve(recipe), Silent())
    assert "positive" in refusal.value.hint
    assert not (recipe.folder / "adapters").exists()
