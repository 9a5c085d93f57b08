"""``rsoup mix`` of whole models, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Command, assert_refused

from ..making import make_adapter
from .models import load, make_model, tensors


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Two models, their base, and an adapter."""
    made = {name: make_model(tmp_path / name, seed) for seed, name in enumerate(("base", "one", "two"))}
    return {**made, "adapter": make_adapter(tmp_path / "adapter")}


def filled(words: str, models: dict[str, Path], out: Path) -> list[str]:
    return words.format(**models, out=out).split()


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ("{one} {two} --lambda 0.25", {"one": 0.75, "two": 0.25}),
        ("{one} {two} -w 0.5 -w 0.25 --base {base} --base-weight 0.25", {"one": 0.5, "two": 0.25, "base": 0.25}),
        ("{one} {two} --lambda 1.5 --allow-extrapolation", {"one": -0.5, "two": 1.5}),
        ("{one} -w 2 --base {base} --method task_arithmetic --allow-extrapolation", {"one": 2.0, "base": -1.0}),
        ("{two}", {"two": 1.0}),
    ],
)
def test_a_mix_is_the_sum_of_its_weights(
    words: str, weights: dict[str, float], models: dict[str, Path], tmp_path: Path, rsoup: Command
) -> None:
    called = rsoup("mix", *filled(words, models, tmp_path), "-o", tmp_path / "out")
    assert (called.code, called.lines, called.err) == (0, [str(tmp_path / "out")], "")
    for name, value in load(tmp_path / "out").items():
        expected = sum(weight * load(models[own])[name].astype(float) for own, weight in weights.items())
        assert abs(value - expected).max() < 1e-5


def test_configurations_may_hold_infinity_and_words_in_brackets(tmp_path: Path, rsoup: Command) -> None:
    """Mamba's do: time_step_limit is [0.0, Infinity]; and what they say is no markup."""
    settings = {"model_type": "[/odd]", "time_step_limit": [0.0, float("inf")]}
    made = [make_model(tmp_path / name, seed, **settings) for seed, name in enumerate(("one", "two"))]
    assert "[/odd]" in rsoup("mix", *made, "--check").out
    called = rsoup("mix", *made, "--lambda", 0.5, "--dtype", "BF16", "-o", tmp_path / "out")
    assert (called.code, called.err) == (0, "")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {**json.loads((made[0] / "config.json").read_text()), "dtype": "bfloat16"}
    for folder in made:
        (folder / "config.json").write_text('{"model_type": "\\ud800"}')
    assert_refused(rsoup("mix", *made, "--check"), "config.json: is not valid JSON", "The base is damaged")


def test_differences_are_told_and_json_carries_them(models: dict[str, Path], tmp_path: Path, rsoup: Command) -> None:
    (models["two"] / "chat_template.jinja").write_text("another")
    words = ["mix", models["one"], models["two"], "--lambda", 0.5, "-o", tmp_path / "out"]
    assert "warning:" in rsoup(*words).err
    told = json.loads(rsoup(*words, "--json").out)
    assert told["path"] == str(tmp_path / "out")
    assert "chat_template.jinja" in told["warnings"][0]
    grid = json.loads(rsoup("mix", models["one"], models["two"], "--grid", 2, "-o", tmp_path / "g", "--json").out)
    assert [Path(point).name for point in grid["points"]] == ["soup-1.00-0.00", "soup-0.50-0.50", "soup-0.00-1.00"]


def test_check_tells_whether_models_fit_and_writes_nothing(
    models: dict[str, Path], tmp_path: Path, rsoup: Command
) -> None:
    called = rsoup("mix", models["one"], models["two"], "--check")
    assert "fits: 5 tensors correspond" in called.out
    assert not (tmp_path / "out").exists()
    told = json.loads(rsoup("mix", models["one"], models["two"], "--check", "--json").out)
    assert [row["type"] for row in told["models"]] == ["llama", "llama"]
    assert told["advice"][0]["kind"] == "far"
    against_base = rsoup("mix", models["one"], models["two"], "--base", models["base"], "--check", "-w", 0.3, "-w", 0.7)
    assert "compared: what each adds to the base" in against_base.out
    assert "slerp: The method slerp takes no base." in against_base.out
    assert max(map(len, against_base.lines)) <= 80


def test_an_extraction_says_what_it_holds(models: dict[str, Path], tmp_path: Path, rsoup: Command) -> None:
    words = ["mix", "--extract", models["one"], "--base", models["base"], "--rank", 2, "-o", tmp_path / "lora"]
    called = rsoup(*words)
    assert called.lines == [str(tmp_path / "lora")]
    for part in ("2 layers at rank 2 hold", "least:", "left out: embeddings (2 tensors)", "of the whole squared"):
        assert part in called.err
    told = json.loads(rsoup(*words, "--json").out)
    assert len(told["layers"]) == 2
    assert 0 < told["of_all"] < told["captured"] < 1


REFUSED = [
    ("{one} {adapter} --lambda 0.5", "is a whole model", "rsoup mix ADAPTER --into BASE"),
    ("{one} {two} --lambda 0.5 --into {base}", "--into merges an adapter", "the output is a model"),
    ("{one} {two} --lambda 0.5 --method cat", "cat is for adapters", "linear"),
    ("{one} {two} --lambda 0.5 --method ties", "mixes differences from a base", "--base BASE"),
    ("{one} {two} --lambda 0.5 --allow-different-starts", "speaks of adapters", "Leave it out"),
    ("{one} {two} --lambda 0.5 --rank 3", "no rank to cut", "Leave --rank"),
    ("{one} {two}", "No weights are given for 2 models", "--lambda"),
    ("{one} {two} -w 0.5", "1 weights for 2 models", "per model"),
    ("{one} {two} --grid 2 --lambda 0.5", "--grid goes with no weights", "Leave them out"),
    ("{one} {two} --lambda 2", "negative", "--allow-extrapolation"),
    ("{adapter} {adapter} --lambda 0.5 --base {base}", "--base speaks of whole models", "--into BASE"),
    ("{adapter} {adapter} --lambda 0.5 --common-vocabulary", "--common-vocabulary speaks of", "Leave it out"),
    ("{one} --extract --rank 2", "needs the model that this one was made from", "--base"),
    ("{one} --extract --base {base}", "needs the largest rank", "--rank 64"),
    ("{one} {two} --extract --base {base} --rank 2", "takes one model", "one by one"),
    ("{one} --extract --base {base} --rank 2 --grid 3", "takes no --grid", "Leave it out"),
    ("{one} --extract --base {base} --rank 2 --allow-extrapolation", "it has no weights", "Leave it out"),
    ("{one} --extract --base {base} --rank 2 --allow-different-starts", "no starting adapter", "Leave it out"),
    ("{one} --extract --base {base} --rank 2 --common-vocabulary", "embeddings stay out", "Leave it out"),
    ("{adapter} --extract --base {base} --rank 2", "an adapter", "a model"),
]


@pytest.mark.parametrize(("words", "message", "hint"), REFUSED)
def test_what_does_not_go_together_is_refused(
    words: str, message: str, hint: str, models: dict[str, Path], tmp_path: Path, rsoup: Command
) -> None:
    assert_refused(rsoup("mix", *filled(words, models, tmp_path), "-o", tmp_path / "out"), message, hint)
    assert not (tmp_path / "out").exists()


def test_a_resized_vocabulary_names_its_option(models: dict[str, Path], tmp_path: Path, rsoup: Command) -> None:
    content = tensors(3)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        content[name] = content[name][:9]
    small = make_model(tmp_path / "small", content)
    words = ["mix", models["one"], small, "--lambda", 0.5, "-o", tmp_path / "out"]
    assert_refused(rsoup(*words), "one vocabulary was resized", "--common-vocabulary")
    assert rsoup(*words, "--common-vocabulary").lines == [str(tmp_path / "out")]
