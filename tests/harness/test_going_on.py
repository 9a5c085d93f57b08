"""What benchmarks have said is found again: after a kill, with more of them, with other adapters."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from evaluation.sweeping import Recording, files, sweep
from forking import Forked
from rsoup.evaluation import answers
from rsoup.evaluation.answers import Answers, key_of
from rsoup.evaluation.sweep import evaluate
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from tiny import build_adapter, recipe_content, write_recipe

from .small_tasks import FACTS, TEXTS, WORDS


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Path]:
    """Three random adapters."""
    folder = tmp_path_factory.mktemp("experts")
    return [build_adapter(folder / name, tiny_model, seed) for seed, name in enumerate("abc")]


@pytest.fixture
def content(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A recipe that measures three points on eight documents each of two tasks."""
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"], content["morl"] = {"brief": None}, []
    settings = {"limit": 8, "batch_size": 3}
    content["evaluation"].update(benchmarks=[FACTS, WORDS], lm_eval=settings, measures=False)
    return content


def of_benchmarks(progress: Recording) -> list[str]:
    return [note for note in progress.completed if " " in note]


def test_a_benchmark_is_not_measured_twice(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    """More of them measure themselves alone, more documents these alone, and prompts do not count."""
    out, first, second = tmp_path / "eval", Recording(), Recording()
    sweep(content, experts[:2], out, first)
    assert len(of_benchmarks(first)) == 4 * 2 * 8
    sweep(content, experts[:2], out, second)
    assert second.completed == []
    for change, expected in (
        ({"max_new_tokens": 4}, 0),
        ({"benchmarks": [FACTS, WORDS, TEXTS]}, 4 * 8),
        ({"lm_eval": {"limit": 10, "batch_size": 3}}, 4 * 2 * 2),
    ):
        again = Recording()
        sweep(content, experts[:2], out, again, **change)
        assert len(of_benchmarks(again)) == expected, change
    other = Recording()
    sweep(content, [experts[0], experts[2]], out, other)
    assert {note.split()[0] for note in of_benchmarks(other)} == {"soup-0.50-0.50", "c"}


def slowly(recipe: Path, out: Path, experts: list[Path]) -> None:
    answers.SECONDS = 0.0
    resolved = resolve(load_recipe(recipe))

    class Telling(Silent):
        def advance(self, note: str = "") -> None:
            if " " in note:
                print(note, file=sys.stderr, flush=True)
                time.sleep(0.03)

    evaluate(resolved, experts, out, Telling())


def test_a_kill_amid_a_benchmark_loses_a_batch_and_changes_nothing(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts[:2], tmp_path / "whole")
    recipe = write_recipe(tmp_path / "r.yaml", content)
    with Forked(slowly, recipe, tmp_path / "eval", experts[:2]) as process:
        process.wait_for(lambda own: own.err.count("\n") >= 13)
        process.send_signal(signal.SIGKILL)
        process.ended()
    kept = list((tmp_path / "eval" / "points").glob("*/answers-*.json"))
    assert kept
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more)
    assert files(tmp_path / "eval") == files(tmp_path / "whole")
    assert 0 < len(of_benchmarks(more)) < 4 * 2 * 8 - 8


def test_answers_count_once_their_batch_is_whole(tmp_path: Path) -> None:
    own = Answers(tmp_path / "answers.json")
    own.add("one", [-1.5, True])
    assert own.find("one") is None
    own.keep()
    own.add("two", "of a batch that is cut off")
    own.write()
    again = Answers(tmp_path / "answers.json")
    assert (again.find("one"), again.find("two")) == ([-1.5, True], None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "rows": 3}', '{"schema": 99, "rows": {}}'])
def test_a_file_of_answers_that_is_not_whole_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "answers.json").write_text(text)
    assert Answers(tmp_path / "answers.json").find("one") is None


def test_what_is_sampled_is_asked_anew() -> None:
    assert key_of("generate_until", ("the lid", {"until": ["."], "do_sample": False, "temperature": 0.0}))
    assert key_of("generate_until", ("the lid", {"do_sample": True})) is None
    assert key_of("generate_until", ("the lid", {"temperature": 0.7})) is None
    assert key_of("loglikelihood", ("a", " b")) != key_of("loglikelihood", ("a ", "b"))


def test_what_they_took_is_noted(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    sweep(content, experts[:2], tmp_path / "eval", benchmarks=[TEXTS])
    told = json.loads((tmp_path / "eval" / "timing.json").read_text())["benchmarks"]
    assert told.keys() == {"base", "a", "soup-0.50-0.50", "b"}
    assert all(own["texts"] > 0 for own in told.values())
