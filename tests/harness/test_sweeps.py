"""Sweeps with benchmarks: of whole models, by workers, tried with stand-ins; and what they refuse."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from command import Command, assert_refused
from evaluation.sweeping import Recording, files, recipe_of, sweep
from rsoup.errors import ModelError, RsoupError
from rsoup.harness.quiet import quiet
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from rsoup.stages.together import evaluate_together
from rsoup.tiny import shrink
from stages.hands import Crew
from tiny import build_adapter, build_tiny_model, recipe_content, tree, write_recipe

from .small_tasks import FACTS, FOLDER, TEXTS, WORDS


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Path]:
    """Two random adapters."""
    folder = tmp_path_factory.mktemp("experts")
    return [build_adapter(folder / name, tiny_model, seed) for seed, name in enumerate("ab")]


@pytest.fixture
def content(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A recipe that measures points on one task of eight documents."""
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"], content["morl"] = {"brief": None}, []
    settings = {"limit": 8, "batch_size": 4}
    content["evaluation"].update(benchmarks=[FACTS], lm_eval=settings, measures=False)
    return content


def of_lm_eval(model: Path, task: str = "facts", metric: str = "acc_norm,none", **settings: Any) -> float:
    """Return what lm-eval finds for a model on a task."""
    with quiet():
        found = simple_evaluate(
            model=HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4),
            tasks=[f"{task}.yaml"],
            task_manager=TaskManager(include_defaults=False),
            limit=8,
            **settings,
        )
    return float(found["results"][task][metric])


@pytest.mark.parametrize("measures", [True, False])
def test_mixes_of_whole_models_have_the_numbers_of_those_that_are_written(
    rsoup: Command,
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measures: bool,
) -> None:
    models = [build_tiny_model(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    results, _ = sweep(content, models, tmp_path / "eval", measures=measures)
    assert rsoup("mix", *models, "--lambda", 0.5, "-o", tmp_path / "half").code == 0
    monkeypatch.chdir(FOLDER)
    expected = {"soup-0.50-0.50": tmp_path / "half", "a": models[0], "base": Path(content["model"]["base"])}
    for name, folder in expected.items():
        assert results.point(name).benchmarks["facts.acc_norm,none"].mean == pytest.approx(of_lm_eval(folder)), name


def test_what_is_sampled_has_lm_evals_luck(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is sampled as a whole again where it is not whole; random numbers of others are left alone."""
    asked = {"do_sample": True, "temperature": 1.0}
    settings = {"limit": 8, "batch_size": 4, "gen_kwargs": asked}
    before = torch.random.get_rng_state()
    results, _ = sweep(content, experts[:1], tmp_path / "eval", benchmarks=[WORDS], lm_eval=settings)
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.chdir(FOLDER)
    label = "different,none"
    expected = of_lm_eval(Path(content["model"]["base"]), "words", label, gen_kwargs=dict(asked))
    assert results.point("base").benchmarks[f"words.{label}"].mean == pytest.approx(expected)
    assert expected != of_lm_eval(Path(content["model"]["base"]), "words", label)
    assert not list((tmp_path / "eval").glob("points/*/answers-*.json"))


def test_documents_that_are_cut_to_fit_the_context_are_told(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    words = [f"{'the lid ' * 80}{word}" for word in ("good", "bad", "fine")]
    rows = [{"question": own, "choices": ["good", "bad", "great"], "answer": 1} for own in words]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "facts.yaml").write_text(Path(FACTS).read_text())
    said = Recording()
    sweep(content, experts[:1], tmp_path / "eval", said, benchmarks=[str(tmp_path / "facts.yaml")])
    (told,) = {text for text in said.said if text.startswith("lm-eval:")}
    assert "exceeds model's maximum length (128)" in told
    assert "times)" in told


def test_workers_measure_what_one_process_measures(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts, tmp_path / "here")
    crew, resolved = Crew(), resolve(recipe_of(content))
    evaluate_together(resolved, experts, tmp_path / "there", crew, Recording())
    crew.close()
    assert files(tmp_path / "there") == files(tmp_path / "here")


def test_what_has_been_measured_needs_no_model(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    sweep(content, experts, tmp_path / "eval")

    def absent(_dtype: str) -> Any:
        raise AssertionError

    resolved = resolve(recipe_of(content))
    object.__setattr__(resolved.base, "load", absent)
    from rsoup.evaluation.sweep import evaluate

    evaluate(resolved, experts, tmp_path / "eval", Recording())


def test_a_run_of_stand_ins_measures_few_documents(content: dict[str, Any], tmp_path: Path) -> None:
    small = shrink(parse_recipe({**content, "output": None}, "test"), tmp_path / "small")
    assert small.evaluation.lm_eval.limit == 4
    assert resolve(small).benchmarks[0].count == 4


def test_the_command_measures_a_benchmark_named_on_its_line(
    rsoup: Command, content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    content["evaluation"]["benchmarks"] = []
    recipe = write_recipe(tmp_path / "r.yaml", content)
    words = ["--adapters", *experts, "--benchmark", FACTS, "--benchmark", TEXTS, "-o", tmp_path / "run"]
    called = rsoup("eval", recipe, *words)
    assert called.code == 0, called.err
    head = called.lines[0].split()
    assert head[:4] == ["lambda", "brief", "↑", "facts"]
    assert "texts ↓" in called.lines[0]
    assert called.lines[-1] == str(tmp_path / "run/eval/results.json")
    assert "Running" not in called.err
    again = rsoup("pareto", tmp_path / "run", "-o", tmp_path / "report")
    assert again.code == 0, again.err
    assert "8 documents of facts" in again.err


@pytest.mark.parametrize("command", ["run", "eval"])
@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"benchmarks": ["absent.yaml"]}, "absent.yaml: there is no such file or folder", "Check the path"),
        ({"benchmarks": [FACTS, FACTS]}, "benchmarks lists a task twice", ""),
        ({"benchmarks": [FACTS], "engine": "vllm"}, "engine vllm does not load", "engine transformers"),
        ({"benchmarks": [FACTS], "compare": ["mod"]}, "measured on one model", "Leave compare out"),
        ({"benchmarks": [FACTS], "lm_eval": {"limits": 3}}, "unknown key evaluation.lm_eval.limits", "limit"),
        ({"benchmarks": [FACTS], "lm_eval": {"limit": 0}}, "limit", ""),
        ({"benchmarks": [WORDS], "lm_eval": {"gen_kwargs": {"max_gen_toks": 128}}}, "128 tokens", "max_gen_toks"),
        ({"benchmarks": [FACTS], "lm_eval": {"apply_chat_template": True}}, "no chat template", "instruct"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    rsoup: Command,
    content: dict[str, Any],
    experts: list[Path],
    tmp_path: Path,
    command: str,
    change: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    content["evaluation"] = {**content["evaluation"], **change}
    recipe = write_recipe(tmp_path / "r.yaml", content)
    before = tree(tmp_path)
    assert_refused(rsoup(command, recipe, *(["--adapters", *experts] if command == "eval" else [])), message, hint)
    assert tree(tmp_path) == before


def test_a_missing_package_is_told_with_the_line_that_installs_it(
    rsoup: Command,
    content: dict[str, Any],
    experts: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "lm_eval" else find(name, *more)
    )
    recipe = write_recipe(tmp_path / "r.yaml", content)
    before = tree(tmp_path)
    called = rsoup("eval", recipe, "--adapters", *experts)
    assert_refused(called, "evaluation.benchmarks needs the package lm-eval", "[bench]")
    assert tree(tmp_path) == before


def test_a_reward_and_a_benchmark_of_one_name_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "brief.yaml").write_text(Path(FACTS).read_text().replace("facts", "brief", 1))
    (tmp_path / "facts.jsonl").write_text((FOLDER / "facts.jsonl").read_text())
    with pytest.raises(RsoupError, match="brief is the name of a reward too"):
        _ = resolve(recipe_of(content, benchmarks=[str(tmp_path / "brief.yaml")])).benchmarks


def test_a_benchmark_that_fails_amid_a_point_says_where(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    for name in ("facts.jsonl", "words.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    code = "def different_words(document, answers):\n    return {'different': {'1': 0.5}[answers[0]]}\n"
    (tmp_path / "scoring.py").write_text(code)
    with pytest.raises(ModelError, match="The benchmark words fails at base: KeyError"):
        sweep(content, experts, tmp_path / "eval", benchmarks=[str(tmp_path / "words.yaml")])
    assert not (tmp_path / "eval" / "results.json").exists()


def test_when_memory_runs_out_batches_are_halved_and_nothing_changes(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = sweep(content, experts, tmp_path / "whole", benchmarks=[FACTS, WORDS])
    from rsoup.evaluation.resident_lm import ResidentLM

    for name in ("_model_call", "_model_generate"):
        whole = getattr(ResidentLM, name)

        def narrow(self: Any, *rows: Any, _whole: Any = whole, **more: Any) -> Any:
            if len(rows[0] if rows else more["context"]) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return _whole(self, *rows, **more)

        monkeypatch.setattr(ResidentLM, name, narrow)
    said = Recording()
    found, _ = sweep(content, experts, tmp_path / "narrow", said, benchmarks=[FACTS, WORDS])
    assert said.said.count("A batch of 4 is too much for the memory; going on with 2.") == 1
    for point, own in zip(expected.points, found.points, strict=True):
        assert own.benchmarks == point.benchmarks
