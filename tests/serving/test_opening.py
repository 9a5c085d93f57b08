"""What can be served, and what is said when it cannot."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from command import Command, assert_refused
from rsoup.errors import RsoupError
from rsoup.evaluation.plan import plan_sweep
from rsoup.installing import pip_line
from rsoup.recipe import EvaluationSection
from rsoup.serving.errors import RequestError
from rsoup.serving.opening import open_run
from rsoup.serving.source import Source
from tiny import build_adapter, build_tiny_model


@pytest.fixture
def moved(tmp_path: Path, tiny_run: Path) -> Path:
    """A finished run in another place than it was made."""
    shutil.copytree(tiny_run / "run", tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_a_run_may_have_been_moved(moved: Path) -> None:
    opened = open_run(Source(str(moved)))
    assert list(opened.adapters) == ["positive", "brief", "morl-0.50-0.50"]
    assert [own.path for own in opened.adapters.values()] == [moved / "adapters" / name for name in opened.adapters]
    assert list(opened.prefer({"brief": 1.0}))
    assert opened.served.context == 128


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("results", "the run has not been evaluated"),
        ("broken", "its results cannot be read"),
        ("adapter", "the run was evaluated with another adapter brief than is served"),
        ("method", "the run was evaluated with the method factors, and cat is served"),
    ],
)
def test_no_preference_without_a_report_on_these_very_models(
    moved: Path, tiny_run: Path, tiny_model: Path, tmp_path: Path, change: str, reason: str
) -> None:
    source = Source(str(moved), method="cat" if change == "method" else None)
    if change == "results":
        (moved / "eval" / "results.json").unlink()
    elif change == "broken":
        (moved / "eval" / "results.json").write_text("{}")
    elif change == "adapter":
        shutil.rmtree(moved / "adapters" / "brief")
        settings = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "base_model_name_or_path": None}
        build_adapter(moved / "adapters" / "brief", tiny_model, 5, **settings)
    opened = open_run(source)
    assert reason in opened.unmeasured
    assert opened.points() == []
    with pytest.raises(RequestError, match="prefer chooses among what was measured"):
        opened.prefer({"brief": 1.0})


def test_adapters_of_another_base_are_refused(moved: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(RsoupError, match=r"The adapter positive was trained on .*, not on"):
        open_run(Source(str(moved), model=str(other)))


def test_adapters_that_factors_cannot_mix_are_refused_and_cat_takes_them(tiny_model: Path, tmp_path: Path) -> None:
    paths = [str(build_adapter(tmp_path / f"r{rank}", tiny_model, 0, r=rank)) for rank in (2, 3)]
    source = Source(model=str(tiny_model), adapters=paths, allow_different_starts=True)
    with pytest.raises(RsoupError, match="rank 3"):
        open_run(source)
    assert list(open_run(Source(model=str(tiny_model), adapters=paths, method="cat")).adapters) == ["r2", "r3"]


def test_adapters_that_name_layers_differently_are_served_and_evaluated_as_mix_takes_them(
    tiny_model: Path, tmp_path: Path
) -> None:
    """One name for one layer, whoever mixes: each is one model's, saved before and after a wrapper renamed it."""
    paths = [build_adapter(tmp_path / f"own{seed}", tiny_model, seed) for seed in (1, 2)]
    weights = paths[1] / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(
        {k.replace(".model.layers.", "._orig_mod.language_model.model.layers."): v for k, v in tensors.items()}, weights
    )
    named = [str(path) for path in paths]
    opened = open_run(Source(model=str(tiny_model), adapters=named))
    assert {len(own.owners.unique()) for own in opened.served.experts.stacks.values()} == {2}
    assert len(plan_sweep(named, EvaluationSection(lambdas=3)).points) == 4


def test_in_bfloat16_rows_agree_within_its_precision(tiny_model: Path, expert_folders: dict[str, Path]) -> None:
    """Opening compares rows of a batch with texts alone."""
    paths = [str(path) for path in expert_folders.values()]
    opened = open_run(Source(model=str(tiny_model), adapters=paths, dtype="bfloat16"))
    assert not opened.served.settles


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "There is nothing to serve", "--model BASE --adapters A B"),
        (["nosuch"], "nosuch: is neither the folder of a run nor a recipe", "rsoup run wrote"),
        (["{folder}"], "has no recipe.yaml", "Give the folder that rsoup run wrote"),
        (["{adapter}"], "has no recipe.yaml", "It is an adapter: give --model BASE --adapters"),
        (["--adapters", "{adapter}"], "The base model of the adapters is not given", "--model BASE"),
        (["--model", "{folder}"], "the folder is not a model", "save_pretrained"),
        (["--api-key-env", "RSOUP_NO_SUCH_KEY"], "the variable RSOUP_NO_SUCH_KEY is empty or not set", "export"),
        (["--host", "192.0.2.1"], "192.0.2.1:8000 cannot be bound", "--host"),
        (["--port", "{port}"], "cannot be bound", "Give another --port"),
    ],
)
def test_mistakes_of_the_command_line(
    rsoup: Command, tmp_path: Path, expert_folders: dict[str, Path], words: list[str], message: str, hint: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        places = {"folder": tmp_path, "adapter": expert_folders["calm"], "port": port}
        anywhere = [] if {"--port", "--host"} & set(words) else ["--port", "0"]
        called = rsoup("serve", *anywhere, *(word.format(**places) for word in words))
    assert_refused(called, message, hint)


def test_without_the_extra_the_command_says_what_to_install(rsoup: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    called = rsoup("serve", "x")
    assert_refused(called, "rsoup serve needs the package starlette", pip_line("serve"))


def test_what_turns_a_whole_batch_to_other_positions_bounds_a_request(tmp_path: Path) -> None:
    """Longrope turns every row beyond a length that the longest of them has."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 32
    folder = build_tiny_model(tmp_path / "base", seed=0, rope_parameters=rope)
    opened = open_run(Source(model=str(folder)))
    assert opened.served.context == 32
    assert "longrope" in opened.warnings[-1]
    assert open_run(Source(model=str(build_tiny_model(tmp_path / "plain", seed=0)))).served.context == 128
