"""What is read, what is pooled, and what is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results
from rsoup.report.inputs import read_inputs

from .synthetic import write_line

LINES = """results[ 0.0 ] = [{'A': 1.0, 'n': 'm'}, {'B-C': 2.0, 'D': 0.5, 'n': 'o'}]
d[ 1.0 ] = [{'A': 2.0, 'n': 'm'}, {'B-C': 1.0, 'D': 0.25, 'n': 'o'}]
"""


def block(folder: Path, text: str, **objectives):
    path = folder / "log.md"
    path.write_text(text)
    return read_inputs([path], objectives, {})


def test_a_label_may_hold_a_dash_and_a_difference_too(tmp_path):
    measured = block(tmp_path, "Some words.\n" + LINES, r1="m.A", r2="o.B-C-o.D")
    assert measured.scores.tolist() == [[1.0, 1.5], [2.0, 0.75]]


def test_the_first_end_is_the_first_expert_unless_the_scores_say_otherwise(tmp_path):
    assert block(tmp_path, LINES, r1="m.A", r2="o.D").models[0].id == "r2"
    assert block(tmp_path, LINES, r2="o.D", r1="m.A").models[0].id == "r2"
    assert block(tmp_path, LINES, r1="m.A", r2="m.A").models[0].id == "r1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing here", "holds no line like"),
        (LINES.replace("'n': 'o'}]", ""), "line 1: is cut short"),
        (LINES.replace("1.0, 'n': 'm'", "'x', 'n': 'm'"), "line 1: m.A is 'x', not a number"),
        (LINES.replace("1.0, 'n': 'm'", "1e999, 'n': 'm'"), "line 1: m.A is inf"),
        (LINES.replace("[{'A': 1.0, 'n': 'm'}, ", "[3, "), "not a list of one dictionary"),
        ("results[ 0.0 ] = " + "(" * 5000, "line 1: is cut short"),
        (LINES.replace("'D': 0.25", "'E': 0.25"), "line 2: has no label 'o.D'"),
        (LINES.replace("1.0, 'n': 'm'", "nan, 'n': 'm'"), "line 1: holds nan, which is no number"),
        (LINES.replace("[ 1.0 ]", "[ 100 ]"), "line 2: lambda is 100, no weight"),
        (LINES.replace("'n': 'o'", "'A': 3.0, 'n': 'm'"), "line 1: m.A is there twice"),
    ],
)
def test_a_printed_block_that_is_not_whole_is_refused(tmp_path, text, words):
    with pytest.raises(ResultsError) as refusal:
        block(tmp_path, text, r1="m.A", r2="o.D")
    assert words in refusal.value.message


def test_numbers_may_be_printed_as_numpy_and_torch_do(tmp_path):
    text = LINES.replace("2.0", "np.float64(2.0)").replace("0.25", "tensor(0.25, device='cuda:0')")
    assert block(tmp_path, text, r1="m.A", r2="o.D").scores.tolist() == [[1.0, 0.5], [2.0, 0.25]]


def test_a_printed_block_does_not_guess_its_rewards(tmp_path):
    with pytest.raises(ResultsError, match=r"m\.A, o\.B-C, o\.D") as refusal:
        block(tmp_path, LINES)
    assert "--objective" in refusal.value.hint


def test_a_printed_line_that_is_nearly_one_is_named(tmp_path):
    (tmp_path / "block.txt").write_text(
        "results[ 0.0 ] = [{'a': 1, 'n': 'm'}]\nresults[ half ] = [{'a': 1, 'n': 'm'}]\n"
    )
    with pytest.raises(ResultsError, match="line 2: is not read"):
        read_inputs([tmp_path / "block.txt"], {"r": "m.a"}, {})


def test_an_unreadable_input_is_named(tmp_path):
    (tmp_path / "noise.md").write_bytes(b"\xff\xfe\x00")
    for name in ("noise.md", "missing.csv", "missing.json"):
        with pytest.raises(ResultsError, match=name):
            read_inputs([tmp_path / name], {}, {})


def test_runs_of_two_seeds_are_pooled_prompt_by_prompt(tmp_path):
    paths = [write_line(tmp_path / str(seed), seed=seed, prompts=8) for seed in (0, 1)]
    measured = read_inputs(paths, {}, {})
    assert measured.samples.shape == (2, 8, 8, 2)
    means = [[point.scores[name].mean for name in measured.rewards] for point in read_results(paths[1]).points]
    np.testing.assert_allclose(measured.samples[1].mean(axis=0), means)
    np.testing.assert_allclose(measured.scores, measured.samples.mean(axis=(0, 1)))
    assert measured.counts == ((16, 16),) * 8


def edited(tmp_path: Path, change) -> list[Path]:
    """Return two runs that would pool, but for a change of the second."""
    paths = [write_line(tmp_path / str(seed), seed=seed, prompts=6) for seed in (0, 1)]
    content = json.loads(paths[1].read_text())
    change(content)
    paths[1].write_text(json.dumps(content))
    return paths


def drop_faithful(content: dict) -> None:
    content["rewards"] = ["positive"]
    for point in content["points"]:
        del point["scores"]["faithful"]


UNLIKE = {
    "rewards": (drop_faithful, "in the rewards"),
    "prompts": (lambda c: c["prompts"].update(sha256="99"), "in the prompts"),
    "base": (lambda c: c["base_model"].update(name="other"), "in the base model"),
    "task": (lambda c: c.update(task="other"), "in the task"),
    "base weights": (lambda c: c["base_model"].update(sha256="99"), "in the base model's weights"),
    "points": (lambda c: c["points"].pop(), "in the points"),
    "method": (lambda c: c.update(method="svd"), "in the mixing method"),
    "generation": (lambda c: c["generation"].update(temperature=0.7), "in the generation"),
    "samples": (lambda c: c.update(samples=None), "has no single scores"),
    "weights": (lambda c: c["points"][2]["weights"].update(positive=0.7), "has other weights"),
    "seed": (lambda c: c.update(seed=0), "has the seed 0"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_runs_that_differ_in_more_than_their_seed_are_not_pooled(tmp_path, case):
    change, words = UNLIKE[case]
    with pytest.raises(ResultsError, match=words):
        read_inputs(edited(tmp_path, change), {}, {})


def test_tables_are_not_pooled_with_results(tmp_path):
    (tmp_path / "a.csv").write_text("id,a\nx,1\n")
    with pytest.raises(ResultsError, match="2 inputs"):
        read_inputs([write_line(tmp_path), tmp_path / "a.csv"], {}, {})


def test_results_have_no_columns_to_choose_rows_by(tmp_path):
    with pytest.raises(ResultsError, match="--where"):
        read_inputs([write_line(tmp_path)], {}, {"kind": "soup"})
