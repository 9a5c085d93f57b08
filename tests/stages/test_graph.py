"""What there is to do, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsoup.evaluation.points import PlannedPoint
from rsoup.recipe import Recipe
from rsoup.recipe_file import parse_recipe
from rsoup.stages.graph import (
    Needs,
    Stage,
    Training,
    fitting,
    ready,
    stages_of_points,
    stages_of_runs,
    stages_of_trainings,
    urgencies,
)
from stages.simulation import bound, four_rewards, length
from tiny import recipe_content


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    return recipe_content(tmp_path, tmp_path / "model")


def waits(stages: list[Stage]) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.waits_for for stage in stages}


def recipe(content: dict[str, Any]) -> Recipe:
    return parse_recipe(content, "tiny")


def test_each_stage_waits_for_what_it_is_made_of_and_no_more(content: dict[str, Any]) -> None:
    start, positive, brief, morl = (f"adapters/{name}" for name in ("init", "positive", "brief", "morl-0.50-0.50"))
    points = {
        "eval/points/base": (start,),
        "eval/points/positive": (positive,),
        "eval/points/soup-0.50-0.50": (positive, brief),
        "eval/points/brief": (brief,),
        "eval/points/morl-0.50-0.50": (morl,),
    }
    trained = {start: (), positive: (start,), brief: (start,), morl: (start,)}
    assert waits(stages_of_runs([recipe(content)])) == {
        **trained,
        **points,
        "eval/results": (*trained, *points),
        "report": ("eval/results",),
    }


def test_a_point_of_a_front_waits_for_the_trainings_of_its_adapters(content: dict[str, Any]) -> None:
    content["training"]["save_every"] = 1
    content["evaluation"]["fronts"] = {
        "early": {"of": ["brief", "morl-0.50-0.50"], "lambdas": 3, "after": 1},
        "line": {"of": ["base", "positive"], "lambdas": 3},
    }
    found = waits(stages_of_runs([recipe(content)]))
    assert found["eval/points/brief@1"] == ("adapters/brief",)
    assert found["eval/points/early-0.50-0.50"] == ("adapters/brief", "adapters/morl-0.50-0.50")
    assert found["eval/points/line-0.50-0.50"] == ("adapters/positive",)


def test_a_reward_may_be_called_like_a_stage(content: dict[str, Any]) -> None:
    content["rewards"] = {"eval": {"use": "positive"}, "report": {"use": "brief"}}
    content["morl"] = []
    names = [stage.name for stage in stages_of_runs([recipe(content)])]
    assert len(set(names)) == len(names)


def test_seeds_are_more_stages_of_one_graph_with_one_report(content: dict[str, Any]) -> None:
    alone = stages_of_runs([recipe(content)])
    recipes = recipe({**content, "seeds": [0, 3]}).by_seed()
    both = waits(stages_of_runs(recipes))
    for seed in (0, 3):
        for stage in alone[:-1]:
            assert both[f"seed-{seed}/{stage.name}"] == tuple(f"seed-{seed}/{name}" for name in stage.waits_for)
    assert both["report"] == ("seed-0/eval/results", "seed-3/eval/results")
    assert len(both) == 2 * len(alone) - 1


def test_baselines_that_the_recipe_does_not_name_are_there_and_waited_for_by_nothing(content: dict[str, Any]) -> None:
    point = waits(stages_of_runs([recipe(content)], [["morl-0.25-0.75"]]))["eval/points/morl-0.25-0.75"]
    assert point == ("adapters/init",)


def test_what_a_training_needs_is_in_the_recipe_and_without_gpus_it_is_cores(content: dict[str, Any]) -> None:
    content["training"] |= {"gpus": 4, "cpus": 2}
    start, training = stages_of_trainings(recipe(content), [Training("positive", {"positive": 1.0}, "expert")])
    (point, _) = stages_of_points(recipe(content), [PlannedPoint("base", "base", {})])
    assert (start.needs, training.needs, point.needs) == (Needs(1, 2), Needs(4, 2), Needs(1, 2))
    assert training.needs.on(Needs(8, 64)) == Needs(4, 2)
    assert training.needs.on(Needs(0, 64)) == Needs(0, 2)


def test_the_most_urgent_stage_comes_first_and_what_does_not_fit_holds_up_nothing() -> None:
    a = Stage("a", "point", needs=Needs(1, 1))
    b = Stage("b", "training", needs=Needs(2, 1))
    c = Stage("c", "point", waits_for=("a",), needs=Needs(1, 1))
    stages = [a, b, c]
    assert urgencies(stages) == {"a": 2, "b": 100, "c": 1}
    assert ready(stages, set(), set()) == [b, a]
    assert ready(stages, {"a"}, {"b"}) == [c]
    assert fitting([b, a], Needs(1, 8), Needs(2, 8)) == [a]
    assert fitting([b, a], Needs(3, 1), Needs(3, 8)) == [b]
    assert fitting([b, a], Needs(3, 8), Needs(3, 8)) == [b, a]


@pytest.mark.parametrize(("training", "point"), [(100.0, 10.0), (60.0, 5.0), (10.0, 10.0), (40.0, 2.0)])
def test_eight_gpus_are_kept_busy(training: float, point: float) -> None:
    """Within 10 % of what no schedule can beat; trainings cannot be divided: 19 of them take three rounds on 8 GPUs."""
    stages, machines = four_rewards(), Needs(8, 64)

    def seconds(stage: Stage) -> float:
        return {"training": training, "point": point}.get(stage.kind, 0.1)

    shortest = max(bound(stages, machines, seconds), 3 * training)
    assert shortest <= length(stages, machines, seconds) <= 1.1 * shortest


def test_one_gpu_does_everything_one_after_another() -> None:
    stages = four_rewards()
    assert length(stages, Needs(1, 4), lambda _stage: 1.0) == len(stages)
