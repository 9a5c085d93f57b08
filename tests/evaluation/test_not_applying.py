"""A reward that does not apply to a completion leaves it out: in means, in files, in the cache and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rsoup.errors import RewardError
from rsoup.evaluation.results import read_results, read_samples, summarise
from rsoup.evaluation.samples import PointSamples
from rsoup.evaluation.sweep import evaluate
from rsoup.files import read_json
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.report import Options, make_report
from rsoup.resolve import resolve
from tiny import recipe_content, write_recipe

OWN = """
CALLS = []
def even(completions, number):
    CALLS.append(len(completions))
    return [float(len(c)) if n % 2 == 0 else None for c, n in zip(completions, number)]
def short(completions):
    return [-float(len(c)) for c in completions]
def never(completions):
    return [None for c in completions]
"""


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def content(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    content = recipe_content(tmp_path, tiny_model)
    rows = [
        {**json.loads(row), "number": n}
        for n, row in enumerate((tmp_path / "posts.jsonl").read_text().split("\n")[:-1])
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own_none.py").write_text(OWN)
    content["task"] |= {"data": str(tmp_path / "rows.jsonl"), "eval_data": str(tmp_path / "rows.jsonl")}
    content["rewards"] = {name: {"function": f"{tmp_path / 'own_none.py'}:{name}"} for name in ("even", "short")}
    content["morl"] = []
    content["evaluation"] |= {"prompts": 9, "measures": False}
    return content


def test_a_mean_is_over_those_that_have_a_score() -> None:
    found = summarise(np.array([1.0, np.nan, 3.0]))
    assert (found.mean, found.stderr, found.n) == (2.0, 1.0, 2)
    samples = PointSamples(("a",) * 4, {"r": np.array([1.0, np.nan, np.nan, np.nan])}, np.ones(4), np.ones(4), {}, 2)
    np.testing.assert_array_equal(samples.by_prompt().scores["r"], [1.0, np.nan])


def test_what_has_no_score_is_null_in_every_file_and_is_not_asked_for_again(
    content: dict[str, Any], tmp_path: Path
) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    progress = Told()
    results = evaluate(resolve(recipe), [], tmp_path / "eval", progress)
    assert "even applies to 5 of 9 prompts: its means are over these." in progress.said
    even, short = results.points[0].scores["even"], results.points[0].scores["short"]
    assert (even.n, short.n) == (5, 9)
    column = pq.read_table(tmp_path / "eval" / "samples.parquet").column("score:even").to_pylist()
    assert [value is None for value in column] == [bool(n % 2) for n in range(9)]
    assert even.mean == pytest.approx(np.mean([value for value in column if value is not None]))
    kept = [
        read_json(path, schema=2, what="", error=RewardError)["rows"]
        for path in tmp_path.glob("eval/points/*/scores-*")
    ]
    assert sorted(sum(value is None for value in rows.values()) for rows in kept) == [0, 4]
    read = read_samples(tmp_path / "eval", read_results(tmp_path / "eval"))
    np.testing.assert_array_equal(np.isnan(read.points["base"].scores["even"]), np.arange(9) % 2 == 1)
    (tmp_path / "own_none.py").write_text(OWN + "\n")  # another file: scored again, to the same results
    before = (tmp_path / "eval" / "results.json").read_bytes()
    evaluate(resolve(load_recipe(tmp_path / "r.yaml")), [], tmp_path / "eval", Silent())
    assert (tmp_path / "eval" / "results.json").read_bytes() == before


def test_a_report_counts_the_prompts_that_have_a_score(content: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    results = evaluate(resolve(recipe), [], tmp_path / "eval", Silent())
    report = make_report([tmp_path / "eval"], tmp_path / "report", Options(draws=200))
    found = report.points[0].scores["even"]
    assert (found.n, found.mean) == (5, pytest.approx(results.points[0].scores["even"].mean))
    assert report.points[0].scores["short"].n == 9
    assert any(note.startswith("even counts 5 of the 9 prompts") for note in report.notes)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "NaN" not in page.partition("</script>")[0]


def test_a_reward_that_never_applies_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    content["rewards"]["never"] = {"function": f"{tmp_path / 'own_none.py'}:never"}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RewardError, match="The reward never applies to none of the 9 completions"):
        evaluate(resolve(recipe), [], tmp_path / "eval", Silent())
    assert not (tmp_path / "eval" / "results.json").exists()


def test_a_column_that_is_missing_is_told_before_anything_is_generated(content: dict[str, Any], tmp_path: Path) -> None:
    content["task"]["eval_data"] = str(tmp_path / "posts.jsonl")
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RewardError, match="nothing gives its parameter 'number'"):
        evaluate(resolve(recipe), [], tmp_path / "eval", Silent())
    assert not (tmp_path / "eval").exists()
