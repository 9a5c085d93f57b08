"""The plan of a sweep: which points, called what, and which of them are the same model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import AdapterError, RecipeError
from rsoup.evaluation.plan import Plan, kind_of, plan_sweep
from rsoup.recipe import EvaluationSection, FrontSection
from tiny import build_adapter


@pytest.fixture
def adapters(tmp_path: Path, tiny_model: Path) -> list[Path]:
    """Three adapters without provenance."""
    return [build_adapter(tmp_path / name, tiny_model, seed) for seed, name in enumerate(("a", "b", "c"))]


def describe(folder: Path, **content: Any) -> Path:
    """Give an adapter a provenance."""
    note = {"schema": 1, "name": folder.name, "kind": "expert", **content}
    (folder / "rsoup.json").write_text(json.dumps(note))
    return folder


def plan(
    folders: Sequence[str | Path], lambdas: int = 11, *, allow_different_starts: bool = False, **settings: Any
) -> Plan:
    section = EvaluationSection(lambdas=lambdas, **settings)
    return plan_sweep(folders, section, allow_different_starts=allow_different_starts)


def ids(plan: Plan) -> list[str]:
    return [point.id for point in plan.points]


def test_two_experts_span_a_line_from_the_first_to_the_second(adapters: list[Path]) -> None:
    swept = plan(adapters[:2], 5)
    assert ids(swept) == ["base", "a", "soup-0.75-0.25", "soup-0.50-0.50", "soup-0.25-0.75", "b"]
    assert [point.kind for point in swept.points] == ["base", "expert", "soup", "soup", "soup", "expert"]
    assert [point.lam for point in swept.points] == [None, 0.0, 0.25, 0.5, 0.75, 1.0]
    assert swept.points[2].weights == {"a": 0.75, "b": 0.25}


def test_one_line_speaks_of_all_adapters_whose_start_is_not_known(adapters: list[Path]) -> None:
    """Also where fronts mix some of them by themselves."""
    fronts = {"some": {"of": ["a", "c"], "lambdas": 3}, "back": {"of": ["base", "b"], "lambdas": 3}}
    swept = plan(adapters, 3, fronts={name: FrontSection(**front) for name, front in fronts.items()})
    [warning] = swept.warnings
    assert warning.startswith(f"{adapters[0]}, {adapters[1]} and {adapters[2]} have no rsoup.json with a start")
    assert plan(adapters[:1]).warnings == ()


def test_three_experts_span_a_lattice_with_each_edge_divided(adapters: list[Path]) -> None:
    swept = plan(adapters, 3)
    assert ids(swept) == [
        "base",
        "a",
        "soup-0.50-0.50-0.00",
        "soup-0.50-0.00-0.50",
        "b",
        "soup-0.00-0.50-0.50",
        "c",
    ]
    assert all(point.lam is None for point in swept.points)
    assert all(sum(point.weights.values()) == 1 for point in swept.points[1:])


def test_one_expert_is_evaluated_alone(adapters: list[Path]) -> None:
    swept = plan(adapters[:1], 11)
    assert ids(swept) == ["base", "a"]


def test_a_baseline_is_a_point_of_its_own(adapters: list[Path]) -> None:
    describe(adapters[1], kind="morl")
    swept = plan(adapters, 3)
    assert ids(swept) == ["base", "a", "soup-0.50-0.50", "c", "b"]
    last = swept.points[-1]
    assert (last.kind, last.weights, last.lam) == ("morl", {"b": 1.0}, None)


@pytest.mark.parametrize("kind", ["init", "expert", "morl", "soup"])
def test_an_adapter_is_what_its_provenance_says(adapters: list[Path], kind: str) -> None:
    describe(adapters[0], kind=kind)
    assert kind_of(plan(adapters[:1], 2).adapters["a"]) == kind


def test_an_adapter_of_unknown_kind_is_an_expert(adapters: list[Path]) -> None:
    describe(adapters[0], kind="something")
    swept = plan(adapters[:2], 2)
    assert [kind_of(adapter) for adapter in swept.adapters.values()] == ["expert", "expert"]


def test_two_adapters_of_one_name_are_refused(tmp_path: Path, tiny_model: Path, adapters: list[Path]) -> None:
    other = build_adapter(tmp_path / "other" / "a", tiny_model, seed=9)
    with pytest.raises(AdapterError, match="Two adapters are called a"):
        plan([adapters[0], other], 3)


def test_the_identity_of_a_point_is_its_content(adapters: list[Path]) -> None:
    there, back = plan(adapters[:2], 5), plan(adapters[1::-1], 5)
    one = {there.identity(point) for point in there.points}
    assert len(one) == len(there.points)
    assert one == {back.identity(point) for point in back.points}


def test_the_method_counts_where_something_is_mixed(adapters: list[Path]) -> None:
    factors, cat = plan(adapters[:2], 3), plan(adapters[:2], 3, method="cat")
    differs = [
        factors.identity(one) != cat.identity(other) for one, other in zip(factors.points, cat.points, strict=True)
    ]
    assert dict(zip(ids(cat), differs, strict=True)) == {"base": False, "a": False, "soup-0.50-0.50": True, "b": False}


def test_different_starts_are_mixed_only_when_told_to(adapters: list[Path]) -> None:
    describe(adapters[0], init_sha256="1" * 64)
    describe(adapters[1], init_sha256="2" * 64)
    with pytest.raises(AdapterError, match="started from different adapters"):
        plan(adapters[:2], 3)
    allowed = plan(adapters[:2], 3, allow_different_starts=True)
    assert allowed.mixed(allowed.points[2]) is not None


def test_what_could_not_be_verified_is_told(adapters: list[Path]) -> None:
    assert any("start" in warning for warning in plan(adapters[:2], 3).warnings)


def test_an_adapter_called_base_is_refused(adapters: list[Path]) -> None:
    renamed = adapters[0].rename(adapters[0].with_name("base"))
    with pytest.raises(AdapterError, match="would be taken for the base"):
        plan([renamed], 3)


def test_an_adapter_may_be_given_a_name(adapters: list[Path], tmp_path: Path, tiny_model: Path) -> None:
    other = build_adapter(tmp_path / "other" / "a", tiny_model, seed=9)
    swept = plan([f"first={adapters[0]}", f"second={other}"], 3)
    assert ids(swept) == ["base", "first", "soup-0.50-0.50", "second"]


def test_several_seeds_of_one_reward_are_averaged(adapters: list[Path]) -> None:
    swept = plan(adapters, 2, uniform=True)
    assert ids(swept) == ["base", "a", "b", "c", "soup-0.333333-0.333333-0.333333"]
    assert sum(swept.points[-1].weights.values()) == pytest.approx(1)


def test_the_base_is_an_ingredient_on_request(adapters: list[Path]) -> None:
    swept = plan(adapters[:1], 3, with_base=True)
    assert ids(swept) == ["base", "a", "soup-0.50-0.50"]
    middle = swept.points[2]
    assert (middle.weights, middle.base_weight, middle.lam) == ({"a": 0.5}, 0.5, 0.5)
    soup = swept.mixed(middle)
    assert soup is not None
    alone = swept.adapters["a"]
    for name, layer in soup.adapter.layers.items():
        whole = alone.layers[name]
        assert layer.scale * layer.up @ layer.down == pytest.approx(0.5 * whole.scale * whole.up @ whole.down, abs=1e-6)


def test_three_ingredients_with_the_base_span_a_lattice(adapters: list[Path]) -> None:
    swept = plan(adapters[:2], 3, with_base=True)
    assert ids(swept) == ["base", "a", "soup-0.50-0.50-0.00", "soup-0.50-0.00-0.50", "b", "soup-0.00-0.50-0.50"]
    assert [point.base_weight for point in swept.points] == [0, 0, 0, 0.5, 0, 0.5]


def test_the_base_takes_no_part_unasked(adapters: list[Path]) -> None:
    with pytest.raises(RecipeError, match="there is no ingredient 'base'") as caught:
        plan(adapters[:2], at=[{"a": 0.5, "base": 0.5}])
    assert "--with-base" in caught.value.hint


def test_a_baseline_is_an_ingredient_on_request(adapters: list[Path]) -> None:
    describe(adapters[1], kind="morl")
    swept = plan(adapters[:2], 3, mix_morl=True)
    assert ids(swept) == ["base", "a", "soup-0.50-0.50", "b"]
    assert [point.kind for point in swept.points] == ["base", "expert", "soup", "morl"]


def test_the_shared_start_is_no_expert(adapters: list[Path]) -> None:
    describe(adapters[0], kind="init")
    assert [point.kind for point in plan(adapters[:2], 3).points] == ["base", "base", "soup", "expert"]


def test_predictions_are_compared_at_the_soups_alone(adapters: list[Path]) -> None:
    swept = plan(adapters[:2], compare=["mod"], at=[{"a": 0.25, "b": 0.75}, {"a": 1.5, "b": -0.5}])
    assert ids(swept) == ["base", "a", "b", "soup-0.25-0.75", "soup-1.50--0.50", "mod-0.25-0.75"]
    assert swept.identity(swept.points[-1]) not in {swept.identity(point) for point in swept.points[:-1]}


def test_the_identity_of_a_mix_counts_the_share_of_the_base(adapters: list[Path]) -> None:
    swept = plan(adapters[:1], 5, with_base=True)
    assert len({swept.identity(point) for point in swept.points}) == len(swept.points)


def test_a_place_among_the_ingredients_goes_there_and_back(adapters: list[Path]) -> None:
    swept = plan(adapters[:2], 3, with_base=True)
    for point in swept.points:
        place = swept.position(point)
        assert place is not None
        assert swept.point_at(place).id == point.id


def test_refining_needs_something_to_mix(adapters: list[Path]) -> None:
    with pytest.raises(RecipeError, match="there is one ingredient"):
        plan(adapters[:1], refine=2)


def test_a_lattice_that_is_large_is_told(adapters: list[Path]) -> None:
    told = "There are 231 mixes to measure; --random K or --refine K measures fewer."
    assert told in plan(adapters, 21).warnings  # (22 over 2)
    assert told not in plan(adapters, 11).warnings


def test_a_baseline_that_is_asked_for_and_missing_is_told(adapters: list[Path]) -> None:
    assert any("no baseline to mix" in warning for warning in plan(adapters, mix_morl=True).warnings)
