"""Sweeps over whole models give what transformers generates with each mix that ``rsoup mix`` writes."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from command import Command
from rsoup.errors import RsoupError
from rsoup.evaluation.results import RESULTS
from rsoup.evaluation.whole import turned_into
from rsoup.experiment import adapters_of, ingredients_of, trainings_of
from rsoup.files import hash_weights
from rsoup.mixing.checkpoints import mix_models, write_model
from rsoup.report import Options, make_report
from tiny import build_tiny_model

from .sweeping import Recording, completions, generate, recipe_of, sweep


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models beside the tiny one, which is the base: three like it, one with tied embeddings, one in bfloat16."""
    folder = tmp_path_factory.mktemp("models")
    built = {name: build_tiny_model(folder / name, seed) for seed, name in enumerate("abc", 1)}
    built["tied"] = build_tiny_model(folder / "tied", 5, tie_word_embeddings=True)
    return built


@pytest.fixture(scope="module")
def coarse(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models in bfloat16."""
    folder = tmp_path_factory.mktemp("coarse")
    return [write_model(mix_models([models[name]], [1.0], dtype="BF16"), folder / name) for name in "ab"]


@pytest.mark.parametrize("measures", [True, False])
def test_every_point_gives_what_transformers_generates_with_the_mix_that_is_written(
    content: dict[str, Any], models: dict[str, Path], tiny_model: Path, tmp_path: Path, measures: bool
) -> None:
    pair = [models["a"], models["b"]]
    results, samples = sweep(content, pair, tmp_path / "eval", lambdas=5, measures=measures)
    found = completions(samples)
    assert found["base"] == generate(AutoModelForCausalLM.from_pretrained(tiny_model), tiny_model)
    kinds = {point.id: point.kind for point in results.points}
    assert kinds == {
        "base": "base",
        "a": "expert",
        "soup-0.75-0.25": "soup",
        "soup-0.50-0.50": "soup",
        "soup-0.25-0.75": "soup",
        "b": "expert",
    }
    for point in results.points[1:]:
        assert point.lam is not None
        out = write_model(mix_models(pair, [1 - point.lam, point.lam]), tmp_path / point.id)
        assert found[point.id] == generate(AutoModelForCausalLM.from_pretrained(out), tiny_model), point.id
    assert len(set(found.values())) == len(found)


def test_the_measured_weights_are_rounded_as_those_that_are_written(
    content: dict[str, Any], coarse: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Models in bfloat16, measured in float32."""
    _, samples = sweep(content, coarse, tmp_path / "eval", lambdas=3, dtype="float32")
    out = write_model(mix_models(coarse, [0.5, 0.5]), tmp_path / "half")
    expected = AutoModelForCausalLM.from_pretrained(out, dtype="float32")
    assert completions(samples)["soup-0.50-0.50"] == generate(expected, tiny_model)


def test_the_base_is_an_ingredient_and_what_differences_are_taken_from(
    content: dict[str, Any], models: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    _, samples = sweep(content, [models["a"]], tmp_path / "eval", with_base=True)
    out = write_model(mix_models([models["a"]], [0.5], base=tiny_model, base_weight=0.5), tmp_path / "half")
    assert completions(samples)["soup-0.50-0.50"] == generate(AutoModelForCausalLM.from_pretrained(out), tiny_model)
    pair = [models["a"], models["b"]]
    _, samples = sweep(content, pair, tmp_path / "ties", method="ties")
    out = write_model(mix_models(pair, [0.5, 0.5], method="ties", base=tiny_model), tmp_path / "merged")
    assert completions(samples)["soup-0.50-0.50"] == generate(AutoModelForCausalLM.from_pretrained(out), tiny_model)


def test_kl_is_measured_to_the_base_and_the_base_comes_back(
    content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    results, _ = sweep(content, [models["a"], models["b"]], tmp_path / "eval")
    divergences = {point.id: point.extras["kl"] for point in results.points}
    assert divergences["base"] == pytest.approx(0, abs=1e-4)
    assert min(divergences["a"], divergences["b"], divergences["soup-0.50-0.50"]) > 0.1


def test_results_say_where_the_models_lay_and_what_their_bytes_were(
    content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    results, _ = sweep(content, [f"first={models['a']}", models["b"]], tmp_path / "eval", measures=False)
    for name, path in (("first", models["a"]), ("b", models["b"])):
        entry = results.adapters[name]
        assert (entry.sha256, entry.kind) == (hash_weights(path), "model")
        assert os.path.normpath(tmp_path / "eval" / entry.path) == str(path)
    assert results.method == "linear"
    report = make_report([tmp_path / "eval" / RESULTS], tmp_path / "report", Options())
    assert {point.kind for point in report.points} == {"base", "expert", "soup"}


def test_the_command_of_a_chosen_mix_of_models_makes_it(
    content: dict[str, Any], models: dict[str, Path], tiny_model: Path, tmp_path: Path, rsoup: Command
) -> None:
    content["rewards"] = {"brief": None, "varied": None}
    _, samples = sweep(content, [models["a"]], tmp_path / "eval", with_base=True, measures=False)
    path = tmp_path / "eval" / RESULTS
    called = rsoup("pareto", path, "--prefer", "brief=0.5,varied=0.5", "--json", "-o", tmp_path / "report")
    assert called.code == 0, called.err
    choice = json.loads(called.out)["choices"][-1]
    words = shlex.split(choice["command"])
    assert words[:2] == ["rsoup", "mix"]
    out = Path(rsoup(*words[1:-1], tmp_path / "made").lines[-1])
    expected = generate(AutoModelForCausalLM.from_pretrained(out), tiny_model)
    assert completions(samples)[choice["nearest"]] == expected
    refused = rsoup("pareto", path, "--knee", "--export", tmp_path / "x", "-o", tmp_path / "r")
    assert (refused.code, "one of whole models" in refused.err) == (1, True)


def test_a_base_that_is_one_of_the_models_is_measured_once(
    content: dict[str, Any], models: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    results, _ = sweep(content, [tiny_model, models["a"]], tmp_path / "eval")
    assert [point.id for point in results.points] == [tiny_model.name, "soup-0.50-0.50", "a"]
    assert results.points[0].extras["kl"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(RsoupError, match="is one of the models already"):
        sweep(content, [tiny_model, models["a"]], tmp_path / "again", with_base=True)


def test_nothing_is_measured_twice_whatever_the_order_of_the_models(
    content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    out, again, more, back = tmp_path / "eval", Recording(), Recording(), Recording()
    pair = [models["a"], models["b"]]
    sweep(content, pair, out, measures=False)
    sweep(content, pair, out, again, measures=False)
    sweep(content, pair, out, more, measures=False, lambdas=5)
    sweep(content, pair[::-1], out, back, measures=False, lambdas=5)
    assert again.completed == back.completed == []
    assert set(more.completed) == {"soup-0.75-0.25", "soup-0.25-0.75"}


def test_a_changed_model_is_measured_again_where_it_takes_part(
    content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    pair = [models["a"], build_tiny_model(tmp_path / "m", 7)]
    sweep(content, pair, tmp_path / "eval", measures=False)
    build_tiny_model(tmp_path / "m", 8)
    again = Recording()
    sweep(content, pair, tmp_path / "eval", again, measures=False)
    assert set(again.completed) == {"soup-0.50-0.50", "m"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "cat"}, "cat does not mix whole models"),
        ({"compare": ["mod"]}, "these are whole models"),
        ({"method": "slerp", "with_base": True}, "slerp takes no base"),
    ],
)
def test_what_does_not_go_with_models_is_refused(
    settings: dict[str, Any], message: str, content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RsoupError, match=message):
        sweep(content, [models["a"], models["b"]], tmp_path / "eval", **settings)


def test_models_of_another_kind_than_the_base_are_refused(
    content: dict[str, Any], models: dict[str, Path], experts: list[Path], tmp_path: Path
) -> None:
    wide = build_tiny_model(tmp_path / "wide", 0, intermediate_size=64)
    with pytest.raises(RsoupError, match="intermediate_size 64"):
        sweep(content, [wide], tmp_path / "eval")
    with pytest.raises(RsoupError, match="an adapter"):
        sweep(content, [models["a"], experts[0]], tmp_path / "eval")
    with pytest.raises(RsoupError, match="linear does not mix adapters"):
        sweep(content, experts[:2], tmp_path / "eval", method="linear")
    with pytest.raises(RsoupError, match="which the models' files lack"):
        sweep(content, [models["tied"]], tmp_path / "eval", measures=False)


def test_models_are_evaluated_from_flags_alone(
    rsoup: Command, models: dict[str, Path], content: dict[str, Any], tmp_path: Path
) -> None:
    words = ["--data", content["task"]["data"], "--reward", "brief", "--lambdas", "3", "--prompts", "2"]
    words += ["--set", "evaluation.max_new_tokens=3", "--set", "task.column=post", "-o", str(tmp_path / "run")]
    called = rsoup("eval", "--models", models["a"], models["b"], *words)
    assert called.code == 0, called.err
    assert called.lines[-1] == str(tmp_path / "run/eval" / RESULTS)
    assert [line.split()[-1] for line in called.lines[1:-1]] == ["a", "soup-0.50-0.50", "b"]
    both = rsoup("eval", "--models", models["a"], "--adapters", models["b"], *words)
    assert (both.code, "do not mix" in both.err) == (1, True)


def test_an_extracted_adapter_is_swept_like_any_other(
    content: dict[str, Any], models: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    from rsoup.mixing.checkpoints import extract

    path = extract(models["a"], tiny_model, tmp_path / "lora", rank=4).folder
    progress = Recording()
    results, _ = sweep(content, [path], tmp_path / "eval", progress)
    assert [point.id for point in results.points] == ["base", "lora"]
    assert not [told for told in progress.said if "KL" in told]


def test_tied_models_take_the_place_of_a_tied_base(
    content: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    other = build_tiny_model(tmp_path / "other", 6, tie_word_embeddings=True)
    content["model"]["base"] = str(models["tied"])
    _, samples = sweep(content, [models["tied"], other], tmp_path / "eval")
    out = write_model(mix_models([models["tied"], other], [0.5, 0.5]), tmp_path / "half")
    expected = generate(AutoModelForCausalLM.from_pretrained(out), models["tied"])
    assert completions(samples)["soup-0.50-0.50"] == expected


def test_without_measures_a_mix_is_written_over_the_base_and_with_them_the_base_comes_back(
    language_model: Any, models: dict[str, Path]
) -> None:
    """No parameter gets new memory, so that all takes the memory of one model; or none keeps another value."""
    parameters = list(language_model.model.parameters())
    before = [(own.data_ptr(), own.detach().clone()) for own in parameters]
    mixture = mix_models([models["a"], models["b"]], [0.3, 0.7])
    with turned_into(language_model, mixture, keep_base=True):
        assert all(bool((own != old).any()) for own, (_, old) in zip(parameters, before, strict=True) if own.ndim > 1)
        kept = [own.detach().clone() for own in parameters]
    assert all(
        own.data_ptr() == place and bool((own == old).all())
        for own, (place, old) in zip(parameters, before, strict=True)
    )
    with turned_into(language_model, mixture, keep_base=False):
        pass
    assert [own.data_ptr() for own in parameters] == [place for place, _ in before]
    assert all(bool((own == value).all()) for own, value in zip(parameters, kept, strict=True))


def test_a_run_of_whole_models_has_no_adapters(models: dict[str, Path], content: dict[str, Any]) -> None:
    recipe = recipe_of({**content, "models": {"first": str(models["a"])}})
    assert trainings_of(recipe) == []
    assert ingredients_of(recipe) == [f"first={models['a']}"]
    with pytest.raises(RsoupError, match="mixes whole models, and trains no adapter"):
        adapters_of(recipe)
