"""What a CSV of points is read as, and what of it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsoup.errors import ResultsError
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options


def table(folder: Path, text: str, **asked):
    path = folder / "points.csv"
    path.write_text(text)
    return read_inputs([path], asked.get("objectives", {}), asked.get("where", {}))


def test_a_plain_table_is_a_set_of_points(tmp_path):
    measured = table(tmp_path, "id,helpful,short\na,1,2\nb,3,0.5\n")
    assert measured.rewards == ("helpful", "short")
    assert [model.id for model in measured.models] == ["a", "b"]
    assert measured.scores.tolist() == [[1, 2], [3, 0.5]]
    assert any("no column kind" in note for note in measured.notes)
    placed = table(tmp_path, "id,lambda,helpful,short\na,0,1,2\nb,1,3,0.5\n")
    assert not any("no column kind" in note for note in placed.notes)


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


@pytest.mark.parametrize("other", ["1,250", "0.5", "12"])
def test_commas_that_may_part_thousands_are_refused_unless_another_number_tells(tmp_path, other):
    with pytest.raises(ResultsError, match=r"row 2: a is '1,234', which may be 1.234 or 1234"):
        table(tmp_path, f"id;a;b\nx;1,234;1\ny;2;{other}\n")
    assert table(tmp_path, "id;a;b\nx;1,234;1\ny;2;0,5\n").scores.tolist() == [[1.234, 1], [2, 0.5]]
    assert table(tmp_path, "id;a;b\nx;0,234;1\ny;2;0.5\n").scores.tolist() == [[0.234, 1], [2, 0.5]]


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
        ("id,a,b\nx,1\n", "row 2: has 2 cells, the header has 3"),
        ("id,a,b\nx,1,2,3\n", "row 2: has 4 cells, the header has 3"),
        ("id,a,b\nx,1,two\n", "row 2: b is 'two', not a number"),
        ("id,a,b\nx,1,nan\n", "row 2: b is 'nan', not a number"),
        ("id,a,b\nx,1,\n", "row 2: b is '', not a number"),
        ("id,a,b\nx,1,2\nx,2,1\ny,1,2\n", "2 points are x."),
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
        ("reward1_name,reward1,reward2_name,reward2\nx,1,x,2\n", "two rewards 'x'"),
        ("reward1_name,reward1,reward2\nx,1,2\n", "the column 'reward2' has no column reward2_name"),
        ("lambda,a,b\n50,1,2\n", "lambda is 50, no weight"),
        ("kind,mu,a,b\nmorl,50,1,2\n", "mu is 50, no weight"),
        ("lambdas,score:h,score:k\n0,1,2\n", "the column 'lambdas' does not look like a reward"),
        ("weight_h,score:h,score:k\n0,1,2\n", "the column 'weight_h' does not look like a reward"),
        ("lambda1,lambda2,a,b\n0,1,1,2\n", "the column 'lambda1' does not look like a reward"),
        ("lambda,a_mean,a_std,b\n0,1,1,2\n", "the column 'a_std' does not look like a reward"),
        ("lambda,a,a_low,a_high,b\n0,1,1,1,2\n", "the column 'a_low' does not look like a reward"),
        ("lambda,a,std,b\n0,1,1,2\n", "the column 'std' does not look like a reward"),
        ("lambda,score:,score:b\n0,1,2\n", "the column 'score:' names nothing"),
        ("lamda,a,b\n0,1,2\n", "the column 'lamda' does not look like a reward"),
        ("alpha,a,b\n0,1,2\n", "the column 'alpha' does not look like a reward"),
        ("lambda,a,a_std,b\n0,1,1,2\n", "the column 'a_std' does not look like a reward"),
        ("lambda,weight:a,weight:b,a,b\n.5,.2,.8,1,2\n", "lambda is 0.5 and the weights are 0.2, 0.8"),
        ("weight:a,weight:b,a,b\n50,50,1,2\n", "weight:a is 50, no weight"),
        ("kind,mu:a,mu:b,a,b\nmorl,0,0,1,2\n", "every mu is 0"),
        ("id,lambda,a,b\nx,0,1,2\ny,0,1,1\nz,1,0,3\n", "x and y both are the expert a by itself"),
        ("id,seed,lambda,a,b\nA,0,0,1,0\nB,0,1,0,1\nA,1,1,1,0\nB,1,0,0,1\n", "'A' is not the same in every seed"),
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


def test_where_names_what_is_there(tmp_path):
    with pytest.raises(ResultsError, match="no column 'datasets'"):
        table(tmp_path, MIXED, where={"datasets": "art"})
    with pytest.raises(ResultsError, match="no row has dataset 'arts'") as refusal:
        table(tmp_path, MIXED, where={"dataset": "arts"})
    assert refusal.value.hint == "Did you mean art?"


def test_columns_without_a_name_are_left_out(tmp_path):
    measured = table(tmp_path, ",lambda,r1,r2,\n0,0,1,2,\n1,1,2,1,\n")
    assert (measured.rewards, measured.scores.tolist()) == (("r1", "r2"), [[1, 2], [2, 1]])


@pytest.mark.parametrize(
    "text",
    [
        "Unnamed: 0,lambda,r1,r2\n0,0,1,2\n1,1,2,1\n",
        "index,lambda,r1,r2\n0,0,1,2\n1,1,2,1\n,,,\n",
        "sep=;\nlambda;r1;r2\n0;1;2\n1;2;1\n",
        "lambda\tr1\tr2\n0\t1,0\t2,0\n1\t2\t1\n",
        "run,run_name,lambda,score:r1,score:r2\n7,x,0,1,2\n7,x,1,2,1\n",
    ],
)
def test_what_programs_put_around_a_table_is_not_read(tmp_path, text):
    measured = table(tmp_path, text)
    assert (measured.rewards, measured.scores.tolist()) == (("r1", "r2"), [[1, 2], [2, 1]])


@pytest.mark.parametrize("names", ["speed,k", "lambada,wikitext", "kindly,kinds", "weight_of_evidence,mu_score"])
def test_rewards_may_have_names_that_sound_like_others(tmp_path, names):
    assert table(tmp_path, f"lambda,{names}\n0,1,2\n1,2,1\n").rewards == tuple(names.split(","))


@pytest.mark.parametrize(
    ("header", "objectives"),
    [
        ("h,h_stderr,k,k_stderr", {}),
        ("score:h,h_stderr,score:k,k_stderr", {}),
        ("score:h,score:h_stderr,score:k,score:k_stderr", {}),
        ("score:h,stderr:h,score:k,stderr:k", {"a": "h", "b": "k"}),
        ("score:h,h_stderr,score:k,k_stderr", {"a": "h", "b": "k"}),
        ("h_mean,h_stderr,k_mean,k_stderr", {}),
    ],
)
def test_standard_errors_are_found_however_the_rewards_are_written(tmp_path, header, objectives):
    measured = table(tmp_path, f"lambda,{header}\n0,1,.3,.1,.2\n1,.1,.3,1,.2\n", objectives=objectives)
    assert len(measured.rewards) == 2
    assert measured.stderr.tolist() == [[0.3, 0.2], [0.3, 0.2]]


def test_errors_of_one_reward_tell_of_that_one(tmp_path):
    text = "kind,lambda,h,h_stderr,k\nsoup,0,1,.1,0\nsoup,.5,.48,.1,.45\nsoup,1,0,.1,1\nbase,,0,,0\n"
    report = analyse(table(tmp_path, text), Options())
    assert {name: own.verdict for name, own in report.lmc.items()} == {"h": "holds within error", "k": "fails"}
    assert report.hypotheses["lmc"].words == "At lambda 0.5 k lies 0.05 below the line; no error is known."
    assert report.points[-1].scores["h"].stderr is None
    assert "Some scores have no standard error." in report.notes


def test_an_end_that_rounding_misses_is_an_expert_too(tmp_path):
    end = sum([0.1] * 10)
    assert end != 1
    measured = table(tmp_path, f"lambda,h,k\n1e-17,.1,.9\n.5,.6,.6\n{end!r},1,.1\n")
    assert [model.kind for model in measured.models] == ["expert", "soup", "expert"]
    assert measured.models[2].weights == {"h": 1, "k": 0}


def test_the_experts_are_those_of_all_seeds_together(tmp_path):
    flat = "0,0,.50,.52\n0,.5,.5,.51\n0,1,.51,.50\n"
    clear = "1,0,.9,.1\n1,.5,.6,.6\n1,1,.1,.9\n"
    for rows in (flat + clear, clear + flat):
        assert table(tmp_path, f"seed,lambda,h,k\n{rows}").models[0].weights == {"h": 1, "k": 0}


def test_a_gap_that_fails_is_told_and_not_a_deeper_one_that_chance_explains(tmp_path):
    text = (
        "id,kind,weight:a,weight:b,a,b,stderr:a,stderr:b\nA,expert,1,0,1,0,.01,.01\nB,expert,0,1,0,1,.01,.01\n"
        "m,soup,.5,.5,.3,.6,.3,.01\nn,soup,.25,.75,.10,.8,.01,.01\n"
    )
    assert "At n a lies 0.15 below" in analyse(table(tmp_path, text), Options()).hypotheses["lmc"].words


def test_a_delimiter_within_quotes_parts_nothing(tmp_path):
    assert table(tmp_path, 'lambda;"R, one";"R, two"\n0;1,5;2\n1;2;1\n').rewards == ("R, one", "R, two")


def test_columns_that_no_objective_speaks_of_may_hold_anything(tmp_path):
    text = "kind,lambda,r1,r2,kl\nsoup,0,,2,\nsoup,1,2,1,0.3\n"
    assert table(tmp_path, text, objectives={"b": "r2"}).scores.tolist() == [[2], [1]]
    with pytest.raises(ResultsError, match="row 2: r1 is '', not a number"):
        table(tmp_path, text, objectives={"a": "r1", "b": "r2"})
    with pytest.raises(ResultsError, match="has no label 'r3'"):
        table(tmp_path, text, objectives={"a": "r3"})


LINE_AND_RUN = """id,kind,lambda,mu,r1,r2
A,expert,0,,1,0
S,soup,0.5,,0.55,0.55
B,expert,1,,0,1
m,morl,,0.8,0.1,0.85
"""


@pytest.mark.parametrize(
    ("objectives", "mu", "first"),
    [
        ({}, {"r1": 0.2, "r2": 0.8}, {"r1": 1, "r2": 0}),
        ({"y": "r2", "x": "r1"}, {"y": 0.8, "x": 0.2}, {"y": 0, "x": 1}),
        ({"r1": "r2", "r2": "r1"}, {"r1": 0.8, "r2": 0.2}, {"r1": 0, "r2": 1}),
    ],
)
def test_lambda_and_mu_stay_with_their_columns_whatever_these_are_called(tmp_path, objectives, mu, first):
    measured = table(tmp_path, LINE_AND_RUN, objectives=objectives)
    assert measured.models[3].mu == pytest.approx(mu)
    assert measured.models[0].weights == first
    assert analyse(measured, Options()).comparison.runs[0].difference.value == pytest.approx(0.1)


def test_ends_that_tell_nothing_leave_lambda_in_the_order_of_the_file(tmp_path):
    text = "lambda,r1,r2\n0,1,1\n0.5,1,1\n1,1,1\n"
    assert table(tmp_path, text, objectives={"y": "r2", "x": "r1"}).models[0].weights == {"y": 0, "x": 1}


def test_mu_of_several_columns_is_scaled_and_may_name_columns_or_objectives(tmp_path):
    text = "kind,mu:{0},mu:{1},r1,r2\nmorl,1,3,1,2\n"
    for names in (("r1", "r2"), ("a", "b")):
        measured = table(tmp_path, text.format(*names), objectives={"a": "r1", "b": "r2"})
        assert measured.models[0].mu == {"a": 0.25, "b": 0.75}


def test_weights_of_a_morl_run_are_those_of_its_rewards(tmp_path):
    measured = table(tmp_path, "id,kind,weight:a,weight:b,a,b\nA,expert,1,0,1,0\nB,expert,0,1,0,1\nm,morl,1,0,1,0\n")
    assert measured.models[2].mu == {"a": 1, "b": 0}
    assert measured.models[2].weights == {"m": 1}


def test_experts_keep_the_names_of_their_columns_under_objectives(tmp_path):
    text = "kind,weight:r1,weight:r2,r1,r2\nsoup,1,0,1,0\nsoup,0.5,0.5,1,1\nsoup,0,1,0,1\n"
    assert table(tmp_path, text, objectives={"a": "r1", "b": "r2"}).experts == {"a": "r1", "b": "r2"}


def test_an_ensemble_is_not_taken_for_its_expert(tmp_path):
    head = "id,kind,weight:r1,weight:r2,score:r1,score:r2\n"
    rows = ["A,expert,1,0,1,0", "S,soup,.5,.5,.55,.55", "B,expert,0,1,0,1", "e1,ensemble,1,0,.5,0", "e2,mod,0,1,0,.5"]
    for order in (rows, rows[::-1]):
        gaps = analyse(table(tmp_path, head + "\n".join(order)), Options()).lmc["r1"].gaps
        assert {gap.id: pytest.approx(gap.gap) for gap in gaps} == {"A": 0, "S": 0.05, "B": 0}


def test_soups_of_unknown_weights_are_chosen_by_their_scores_alone(tmp_path):
    text = "id,kind,weight:a,weight:b,a,b\ns1,soup,,,1,2\ns2,soup,,,2,0\nm,morl,.5,.5,1,1\n"
    report = analyse(table(tmp_path, text), Options(prefer=({"a": 0.5, "b": 0.5},)))
    assert [(choice.rule, choice.nearest) for choice in report.choices] == [("validation", "s1")]


@pytest.mark.parametrize(
    ("mu", "error", "verdict", "words"),
    [
        ("0.5", "0.1", "holds within error", "by more than chance explains"),
        ("0.5", "0.0001", "fails", "1 of 1 MORL runs beat every soup on their own preference"),
        ("", "0.1", "unknown", "The preferences that the MORL runs were trained for are not known"),
    ],
)
def test_a_morl_run_fails_the_claim_only_beyond_chance_and_on_a_known_preference(tmp_path, mu, error, verdict, words):
    head = "id,kind,lambda,mu,a,b,stderr:a,stderr:b\n"
    rows = f"A,expert,0,,1,0,{error},{error}\nS,soup,.5,,.55,.55,{error},{error}\nB,expert,1,,0,1,{error},{error}\n"
    report = analyse(table(tmp_path, f"{head}{rows}m,morl,,{mu},.556,.546,{error},{error}\n"), Options())
    assert (report.hypotheses["coverage"].verdict, words in report.hypotheses["coverage"].words) == (verdict, True)


def test_a_morl_run_of_unknown_preference_that_a_soup_equals_beats_nothing(tmp_path):
    text = "id,kind,lambda,a,b\nA,expert,0,1,0\nS,soup,.5,.5,.5\nB,expert,1,0,.2\nm,morl,,.5,.5\n"
    report = analyse(table(tmp_path, text), Options())
    assert report.comparison.runs[0].dominates == ["B"]
    assert report.hypotheses["coverage"].verdict == "holds"
