"""What is read, what is pooled, and what is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options

from .synthetic import write_line

LINES = """results[ 0.0 ] = [{'A': 1.0, 'n': 'm'}, {'B-C': 2.0, 'D': 0.5, 'n': 'o'}]
d[ 1.0 ] = [{'A': 2.0, 'n': 'm'}, {'B-C': 1.0, 'D': 0.25, 'n': 'o'}]
"""


def table(folder: Path, text: str, **asked):
    path = folder / "points.csv"
    path.write_text(text)
    return read_inputs([path], asked.get("objectives", {}), asked.get("where", {}))


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
    ],
)
def test_a_printed_block_that_is_not_whole_is_refused(tmp_path, text, words):
    with pytest.raises(ResultsError) as refusal:
        block(tmp_path, text, r1="m.A", r2="o.D")
    assert words in refusal.value.message


def test_a_printed_block_does_not_guess_its_rewards(tmp_path):
    with pytest.raises(ResultsError, match=r"m\.A, o\.B-C, o\.D") as refusal:
        block(tmp_path, LINES)
    assert "--objective" in refusal.value.hint


def test_a_plain_table_is_a_set_of_points(tmp_path):
    measured = table(tmp_path, "id,helpful,short\na,1,2\nb,3,0.5\n")
    assert measured.rewards == ("helpful", "short")
    assert [model.id for model in measured.models] == ["a", "b"]
    assert measured.scores.tolist() == [[1, 2], [3, 0.5]]
    assert any("no column kind" in note for note in measured.notes)


def test_a_table_with_weights_of_three_experts(tmp_path):
    head = "kind,weight:x,weight:y,weight:z,score:x,score:y,score:z\n"
    measured = table(tmp_path, head + "soup,1,0,0,3,0,0\nsoup,0.2,0.3,0.5,1,1,1\nbase,,,,0,0,0\n")
    assert [(model.id, model.kind) for model in measured.models] == [
        ("x", "expert"), ("soup-0.20-0.30-0.50", "soup"), ("base", "base"),
    ]  # fmt: skip
    assert measured.experts == {"x": "x", "y": "y", "z": "z"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_may_be_parted_otherwise_and_have_errors_beside_them(tmp_path, delimiter):
    text = "lam,a,a_stderr,b,stderr:b,odd_stderr\n0,1,0.1,0,0.2,7\n1,0,0.3,1,0.4,8\n".replace(",", delimiter)
    measured = table(tmp_path, text)
    assert measured.rewards == ("a", "b", "odd_stderr")  # an error of nothing that is there
    measured = table(tmp_path, text, objectives={"a": "a", "b": "b"})
    assert measured.stderr.tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert measured.models[1].lam == 1.0
    report = analyse(measured, Options())
    assert report.points[0].scores["a"].stderr == 0.1
    assert any("no intervals" in note for note in report.notes)


def test_numbers_between_semicolons_may_have_a_comma(tmp_path):
    measured = table(tmp_path, "lambda;a;b\n0;1,5;-0,25\n0,5;1;2e-1\n1;,5;1,5e0\n")
    assert measured.scores.tolist() == [[1.5, -0.25], [1.0, 0.2], [0.5, 1.5]]
    assert [model.lam for model in measured.models] == [0.0, 0.5, 1.0]


def test_a_column_of_words_is_no_reward_unless_one_says_so(tmp_path):
    text = "id,path,a,b\nx,runs/x,1,2\ny,runs/y,2,1\n"
    with pytest.raises(ResultsError, match="row 2: path is 'runs/x', not a number") as refusal:
        table(tmp_path, text)
    assert "--objective" in refusal.value.hint
    assert table(tmp_path, text, objectives={"a": "a", "b": "b"}).scores.tolist() == [[1, 2], [2, 1]]


def test_objectives_choose_columns_of_a_table(tmp_path):
    measured = table(tmp_path, "id,good,bad\na,3,1\nb,2,2\n", objectives={"net": "good-bad", "good": "good"})
    assert measured.scores.tolist() == [[2, 3], [0, 2]]


def test_mu_of_a_training_is_the_weight_of_the_second_reward(tmp_path):
    measured = table(tmp_path, "kind,mu,a,b\nmorl,0.25,1,2\n")
    assert measured.models[0].mu == {"a": 0.75, "b": 0.25}
    assert measured.models[0].id == "morl-0.75-0.25"


def test_steps_on_the_way_of_a_training_do_not_count(tmp_path):
    measured = table(tmp_path, "kind,mu,step,a,b\nmorl,0.5,1,9,9\nmorl,0.5,final,1,2\n")
    assert measured.scores.tolist() == [[1, 2]]
    assert any("a training: 1." in note for note in measured.notes)


def test_seeds_of_a_table_are_pooled(tmp_path):
    measured = table(tmp_path, "seed,lambda,a,b\n0,0,1,0\n0,1,0,1\n1,1,0,3\n1,0,3,0\n")
    assert measured.scores.tolist() == [[2, 0], [0, 2]]
    assert measured.samples.shape == (2, 1, 2, 2)


MIXED = """dataset,lambda,reward1_name,reward1,reward2_name,reward2
news,0,a,1,b,2
news,1,a,2,b,1
art,0,c,1,d,2
art,1,c,2,d,1
"""


def test_points_of_different_rewards_are_not_compared_in_silence(tmp_path):
    with pytest.raises(ResultsError, match="different rewards in reward1_name: a, c") as refusal:
        table(tmp_path, MIXED)
    assert "--where dataset=news" in refusal.value.hint
    assert table(tmp_path, MIXED, where={"dataset": "art"}).rewards == ("c", "d")


@pytest.mark.parametrize("rewards", ["a", "a,b,c"])
def test_a_line_of_two_experts_may_be_measured_on_other_than_two_rewards(tmp_path, rewards):
    scores = rewards.replace("a", "1").replace("b", "2").replace("c", "3")
    measured = table(tmp_path, f"lambda,{rewards}\n0,{scores}\n0.25,{scores}\n1,{scores}\n")
    assert measured.models[1].weights == {"first": 0.75, "second": 0.25}
    assert measured.experts == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no points"),
        ("id,a,b\n", "holds no points"),
        ("id,a,b\nx,1\n", "row 2: has not as many cells"),
        ("id,a,b\nx,1,2,3\n", "row 2: has not as many cells"),
        ("id,a,b\nx,1,two\n", "row 2: b is 'two', not a number"),
        ("id,a,b\nx,1,nan\n", "row 2: b is 'nan', not a number"),
        ("id,a,b\nx,1,\n", "row 2: b is '', not a number"),
        ("id,a,b\nx,1,2\nx,2,1\n", "only 1 different ids"),
        ("kind,a,b\nstew,1,2\n", "'stew' is no kind"),
        ("id,kind\nx,soup\n", "no column of rewards"),
        ("seed,lambda,a,b\n0,0,1,2\n0,1,1,2\n1,0,1,2\n", "not there for every seed"),
        ("kind,mu,a,b,c\nmorl,0.5,1,2,3\n", "one mu says nothing about 3 rewards"),
        ('id,a,b\nx,"1,2\n', "row 2: is not CSV"),
        ("id,a,b\nx,1,1e300\n", "row 2: b is '1e300', not a number"),
        ("id,step,a,b\nx,100,1,2\n", "every row is a step"),
        ("id,a,b,a\nx,1,2,3\n", "two columns 'a'"),
        ("id,Lambda,a,b\nx,0.5,1,2\n", "the column 'Lambda' is no reward"),
        ("kind,weight_a,weight_b,a,b\nsoup,1,0,0.2,0.3\n", "the column 'weight_a' does not look like a reward"),
        ("λ,a,b\n0.5,1,2\n", "the column 'λ' does not look like a reward"),
        ("a_name,a,b_name,b\nx,1,x,2\n", "two rewards 'x'"),
        ("lambda,a,b\n50,1,2\n", "lambda is 50, no weight"),
        ("kind,mu,a,b\nmorl,50,1,2\n", "mu is 50, no weight"),
        ("kind,lambda,a,a_stderr\nsoup,0,1,-1\n", "the standard error of a is -1"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(tmp_path, text, words):
    with pytest.raises(ResultsError) as refusal:
        table(tmp_path, text)
    assert words in refusal.value.message
    assert "points.csv" in refusal.value.message


def test_standard_errors_of_a_table_tell_chance_from_a_gap(tmp_path):
    """The middle lies 0.01 below the line; with errors of 1 at all three points that is nothing."""
    text = "kind,lambda,a,a_stderr,b,b_stderr\nexpert,0,5,{0},1,{0}\nsoup,0.5,2.99,{0},3.5,{0}\nexpert,1,1,{0},5,{0}\n"
    verdicts = {}
    for error in (1, 0.001):
        report = analyse(table(tmp_path, text.format(error)), Options())
        gap = report.lmc["a"].minimum
        assert gap.stderr == pytest.approx(error * np.sqrt(1.5))
        verdicts[error] = report.hypotheses["lmc"].verdict
    assert verdicts == {1: "holds within error", 0.001: "fails"}


def test_an_end_of_the_line_that_only_one_reward_tells_apart(tmp_path):
    measured = table(tmp_path, "lambda,a,b\n0,1,5\n0.5,1,3\n1,1,1\n")
    assert dict(measured.models[0].weights) == {"a": 0.0, "b": 1.0}


def test_a_printed_line_that_is_nearly_one_is_named(tmp_path):
    (tmp_path / "block.txt").write_text(
        "results[ 0.0 ] = [{'a': 1, 'n': 'm'}]\nresults[ half ] = [{'a': 1, 'n': 'm'}]\n"
    )
    with pytest.raises(ResultsError, match="line 2: is not read"):
        read_inputs([tmp_path / "block.txt"], {"r": "m.a"}, {})


def test_where_names_what_is_there(tmp_path):
    with pytest.raises(ResultsError, match="no column 'datasets'"):
        table(tmp_path, MIXED, where={"datasets": "art"})
    with pytest.raises(ResultsError, match="no row has dataset 'arts'") as refusal:
        table(tmp_path, MIXED, where={"dataset": "arts"})
    assert refusal.value.hint == "Did you mean art?"


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
    assert measured.counts == (16,) * 8


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


def test_results_name_their_rewards_themselves(tmp_path):
    with pytest.raises(ResultsError, match="--objective"):
        read_inputs([write_line(tmp_path)], {"r": "positive"}, {})
