"""Lower is better for some rewards: the same findings as on their opposites, told in their own sign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.cli.display import results_table, show_report
from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results
from rsoup.recipe import RewardSection
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.measured import Measured, Model
from rsoup.report.schema import Report
from rsoup.rewards import reward_identity

from .synthetic import write_line, write_triangle

CASE = "id,lambda,accuracy,toxicity\na,0.0,0.90,0.50\nb,0.5,0.80,0.10\nc,1.0,0.60,0.60\n"


def report_on(folder: Path, text: str = CASE, **asked: Any) -> Report:
    (folder / "points.csv").write_text(text)
    options = Options.from_flags(**asked)
    return analyse(read_inputs([folder / "points.csv"], options.objectives, options.where, options.minimize), options)


@pytest.mark.parametrize(
    "mark",
    [
        *("toxicity (min)", "toxicity:min", "score:toxicity (MIN)", "toxicity(min)", "toxicity ↓", "toxicity (↓)"),
        *("toxicity (minimize)", "toxicity [Minimise]", "toxicity (lower is better)", "toxicity (Lower Better)"),
    ],
)
def test_a_column_may_say_that_lower_is_better(tmp_path, mark):
    text = CASE.replace("toxicity", mark)
    if mark.startswith("score:"):
        text = text.replace("accuracy", "score:accuracy")
    report = report_on(tmp_path, text)
    assert report.rewards == ["accuracy", "toxicity"]
    assert report.directions == {"accuracy": "maximize", "toxicity": "minimize"}
    assert report.front == ["a", "b"]
    assert report.point("b").scores["toxicity"].mean == 0.1


def test_a_flag_says_the_same_and_the_figures_are_in_the_rewards_own_sign(tmp_path):
    report = report_on(tmp_path, minimize=["toxicity"])
    assert report.front == ["a", "b"]
    assert report.point("c").dominated_by in ("a", "b")
    volume = report.hypervolume["all"]
    assert volume.value == pytest.approx(0.11)
    assert volume.reference_point == {"accuracy": 0.6, "toxicity": 0.6}
    given_point = report_on(tmp_path, minimize=["toxicity"], reference=["accuracy=0.7,toxicity=0.5"])
    assert given_point.hypervolume["all"].value == pytest.approx(0.1 * 0.4)


def test_the_opposite_of_a_column_is_an_objective(tmp_path):
    report = report_on(tmp_path, objective=["accuracy=accuracy", "nontoxic=-toxicity"])
    assert report.front == ["a", "b"]
    assert report.point("a").scores["nontoxic"].mean == -0.5
    assert report.directions["nontoxic"] == "maximize"
    marked = report_on(
        tmp_path, CASE.replace("toxicity", "toxicity (min)"), objective=["accuracy=accuracy", "n=-toxicity"]
    )
    assert marked.directions["n"] == "maximize"
    assert marked.front == ["a", "b"]


NOTE = "Higher counts as better for {0}; if lower is better, add --minimize {0}."


def test_a_name_that_sounds_as_if_lower_were_better_is_said_to_count_upwards_until_somebody_tells(tmp_path):
    def noted(text: str, **asked: Any) -> list[str]:
        return [note for note in report_on(tmp_path, text, **asked).notes if note.startswith("Higher counts")]

    assert noted(CASE) == [NOTE.format("toxicity")]
    assert noted(CASE, objective=["r=accuracy", "bad=toxicity"]) == [NOTE.format("bad")]
    assert noted(CASE, objective=["r=accuracy", "loss=-accuracy"]) == [NOTE.format("loss")]
    assert not noted(CASE, minimize=["toxicity"])
    assert not noted(CASE.replace("toxicity", "toxicity (min)"))
    for mark in ("(max)", "↑", "(higher is better)"):
        assert not noted(CASE.replace("toxicity", f"toxicity {mark}"))
    assert noted(CASE.replace("toxicity", "toxicity rate"))[0].endswith("add --minimize 'toxicity rate'.")
    assert not noted(CASE.replace("toxicity", "helpfulness"))
    assert not noted(CASE, objective=["r=accuracy", "nontoxic=-toxicity"])
    (tmp_path / "log.txt").write_text(
        "results[ 0 ] = [{'loss': 1.0, 'n': 'm'}]\nresults[ 1 ] = [{'loss': 2.0, 'n': 'm'}]"
    )
    assert NOTE.format("r1") in read_inputs([tmp_path / "log.txt"], {"r1": "m.loss", "r2": "-m.loss"}, {}).notes


def test_a_difference_goes_the_way_of_its_first_label_and_keeps_no_error(tmp_path):
    text = "id,a (min),b,a_stderr\nx,1,0.5,0.1\ny,2,1,0.1\n"
    report = report_on(tmp_path, text, objective=["net=a-b", "more=b", "less=-a"])
    assert report.directions == {"net": "minimize", "more": "maximize", "less": "maximize"}
    assert [report.point("x").scores[name].stderr for name in report.rewards] == [None, None, 0.1]


def test_marks_that_say_nothing_of_a_reward_are_refused(tmp_path):
    for header, words in (
        ("acc,acc (min)", "'acc' and 'acc (min)' would be one reward"),
        ("acc (min),acc (max)", "'acc (min)' and 'acc (max)' would be one reward"),
        ("acc,lambda (min)", "the column 'lambda (min)' is no reward"),
    ):
        with pytest.raises(ResultsError) as refusal:
            report_on(tmp_path, f"id,{header}\nx,1,1\n")
        assert words in refusal.value.message


@pytest.mark.parametrize(
    ("asked", "words", "hint"),
    [
        ({"minimize": ["toxic"]}, "--minimize: 'toxic' is no reward", "toxicity"),
        ({"minimize": ["toxicity"], "at_least": ["toxicity=0.2"]}, "a floor keeps out the best", "--at-most toxicity"),
        ({"at_most": ["accuracy=0.7"]}, "a ceiling keeps out the best", "--minimize accuracy"),
        (
            {"minimize": ["toxicity"], "at_most": ["toxicity=0.05"], "at_least": ["accuracy=0.7"]},
            "--at-least and --at-most: no soup reaches accuracy >= 0.7, toxicity <= 0.05; the nearest point, b, has "
            "accuracy 0.8, toxicity 0.1",
            "evaluate more",
        ),
        ({"objective": ["x=-toxic"]}, "has no label '-toxic'", "toxicity"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path, asked, words, hint):
    with pytest.raises(ResultsError) as refusal:
        report_on(tmp_path, **asked)
    assert words in refusal.value.message
    assert hint in refusal.value.hint


def test_bounds_choose_by_what_is_better(tmp_path):
    asked = {"minimize": ["toxicity"], "at_most": ["toxicity=0.55"], "prefer": ["accuracy=1"]}
    choice = report_on(tmp_path, **asked).choices[-1]
    assert (choice.rule, choice.nearest, choice.asked) == ("at most", "a", {"toxicity": 0.55})
    assert "toxicity <= 0.55" in choice.words
    choice = report_on(tmp_path, **asked, at_least=["accuracy=0.5"]).choices[-1]
    assert choice.rule == "bounds"
    only = report_on(tmp_path, minimize=["toxicity"], at_most=["toxicity=0.55"]).choices[0]
    assert only.nearest == "a"  # the reward without a bound is what is raised


def test_the_end_of_a_line_that_scores_lower_is_the_expert_of_what_is_minimised(tmp_path):
    text = "lambda,good,bad\n0,0.1,0.2\n1,0.9,0.8\n"
    assert [model.id for model in analysed_models(tmp_path, text, ("bad",))] == ["bad", "good"]


def analysed_models(folder: Path, text: str, minimize: tuple[str, ...]) -> tuple[Model, ...]:
    (folder / "points.csv").write_text(text)
    return read_inputs([folder / "points.csv"], {}, {}, minimize).models


def test_a_mix_above_the_line_is_the_worse_one_where_lower_is_better(tmp_path):
    text = "lambda,good,bad (min)\n0,1,1\n0.5,0.6,0.7\n1,0,0\n"
    report = report_on(tmp_path, text)
    assert report.lmc["good"].verdict == "holds"
    assert report.lmc["bad"].verdict == "fails"
    worst = report.lmc["bad"].shortfall
    assert worst is not None
    assert worst.gap == pytest.approx(0.2)  # 0.7 - (1 + 0) / 2, in the sign of the reward
    assert report.lmc["bad"].minimum == worst
    assert worst.exceeds_stderr
    assert "At lambda 0.5 bad lies 0.2 above the line" in report.hypotheses["lmc"].words


def shown(report: Report, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_report(report)
    return capsys.readouterr().out.splitlines()


def test_the_terminal_says_which_way_rewards_are_better(tmp_path, capsys):
    lines = shown(report_on(tmp_path, minimize=["toxicity"]), capsys)
    assert lines[0].split() == ["point", "lambda", "accuracy", "↑", "toxicity", "↓", "front"]
    assert "hypervolume from accuracy 0.600, toxicity 0.600" in lines
    assert shown(report_on(tmp_path), capsys)[0].split() == ["point", "lambda", "accuracy", "toxicity", "front"]


def test_the_table_of_an_evaluation_says_it_too(tmp_path):
    for minimized, heads in ((("faithful",), ["positive ↑", "faithful ↓"]), ((), ["positive", "faithful"])):
        results = read_results(write_line(tmp_path / str(len(minimized)), prompts=4, minimized=minimized))
        assert [column.header for column in results_table(results, {}).columns][1:3] == heads


def test_a_table_too_wide_for_its_errors_is_shown_without_them(tmp_path, capsys):
    names = [f"benchmark_{number}" for number in range(5)]
    head = ",".join(["id", *names, *(f"{name}_stderr" for name in names)])
    errors = ",.001" * 5
    rows = f"a,0.1234,0.2,0.3,0.4,0.5{errors}\nb,0.1244,0.3,0.2,0.5,0.4{errors}\n"
    assert shown(report_on(tmp_path, f"{head}\n{rows}"), capsys)[0].split() == ["point", *names, "front"]


NAMES = ("a", "b", "c")
HALF = st.integers(-6, 6).map(lambda value: value / 4)


@st.composite
def measurements(draw: st.DrawFn) -> Measured:
    """Draw a line or a triangle of soups with a MORL run and a base, with single scores or without."""
    count = draw(st.sampled_from([2, 3]))
    names = NAMES[:count]
    mixes = [np.eye(count)[row] for row in range(count)] + [np.full(count, 1 / count)]
    models = [Model(f"s{row}", "soup", dict(zip(names, mix.tolist(), strict=True))) for row, mix in enumerate(mixes)]
    models += [Model("run", "morl", {"run": 1.0}, None, dict.fromkeys(names, 1 / count)), Model("base", "base", {})]
    shape = (draw(st.sampled_from([1, 2])), draw(st.sampled_from([4, 5])), len(models), count)
    values = draw(st.lists(HALF, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    samples = np.array(values).reshape(shape)
    minimized = frozenset(draw(st.sets(st.sampled_from(names), min_size=1)))
    experts = {name: name for name in names}
    bare = draw(st.booleans())
    return Measured(
        rewards=names,
        models=tuple(models),
        scores=samples.mean(axis=(0, 1)),
        sources=(),
        samples=None if bare else samples,
        stderr=np.full((len(models), count), 0.25) if bare else None,
        experts=experts,
        minimized=minimized,
    )


@given(measurements(), st.integers(0, 2))
@settings(max_examples=12, deadline=None)
def test_what_is_found_is_that_of_the_opposite_scores(measured: Measured, seed: int) -> None:
    """Fronts, volumes, gaps, verdicts, choices and intervals do not depend on how the direction is said."""
    mirrored = replace(measured.as_gains(), minimized=frozenset())
    mu = {name: 1 / len(measured.rewards) for name in measured.rewards}
    options = Options(draws=100, seed=seed, prefer=(mu,), knee=True)
    found, expected = without_words(analyse(measured, options)), without_words(analyse(mirrored, options))
    assert turned_back(found, measured.minimized) == expected


def without_words(report: Report) -> dict[str, Any]:
    """Return the figures of a report without its directions and the words about them."""
    content = report.model_dump(exclude={"directions", "notes", "hypotheses"})
    content["verdicts"] = {name: own.verdict for name, own in report.hypotheses.items()}
    return content


def turned_back(content: dict[str, Any], minimized: frozenset[str]) -> dict[str, Any]:
    """Return figures with those of minimised rewards in the opposite sign."""
    for where in (*content["points"], *content["choices"]):
        for name in minimized:
            opposite(where["scores"][name], "mean")
    for volume in content["hypervolume"].values():
        for name in minimized:
            opposite(volume["reference_point"], name)
    for name, own in content["lmc"].items():
        for gap in [*own["gaps"], own["minimum"], own["shortfall"]] if name in minimized else []:
            if gap is not None:
                opposite(gap, "gap")
    return content


def opposite(where: dict[str, Any], key: str) -> None:
    where[key] = 0.0 - where[key]
    if where.get("interval") is not None:
        low, high = where["interval"]
        where["interval"] = (0.0 - high, 0.0 - low)


@pytest.mark.parametrize("write", [write_line, write_triangle])
def test_results_say_which_way_their_rewards_are_better(tmp_path, write):
    paths = write(tmp_path / "plain", prompts=12), write(tmp_path / "minimal", prompts=12, minimized=("faithful",))
    plain, minimal = (analyse(read_inputs([path], {}, {}), Options(draws=100)) for path in paths)
    assert minimal.directions["faithful"] == "minimize"
    assert minimal.point("faithful").scores["faithful"].mean == -plain.point("faithful").scores["faithful"].mean
    assert minimal.front == plain.front
    assert minimal.hypervolume["all"].value == plain.hypervolume["all"].value
    assert minimal.preferences == plain.preferences
    assert minimal.controllability == plain.controllability


def test_an_old_file_without_directions_is_read_and_a_new_one_that_needs_none_is_the_same(tmp_path):
    path = write_line(tmp_path, prompts=4)
    assert "directions" not in path.read_text()
    assert read_results(path).minimized == frozenset()
    assert '"directions"' in write_line(tmp_path / "m", prompts=4, minimized=("positive",)).read_text()


def test_directions_of_what_is_no_reward_are_refused(tmp_path):
    path = write_line(tmp_path, prompts=4, minimized=("positive",))
    path.write_text(path.read_text().replace('"positive": "minimize"', '"polite": "minimize"'))
    with pytest.raises(ResultsError, match="directions: 'polite' is not one of"):
        read_results(path)


def test_a_flag_turns_a_reward_round_that_trainings_raised_and_then_knows_no_expert_of_it(tmp_path):
    measured = read_inputs([write_line(tmp_path, prompts=4)], {}, {}, ["faithful"])
    assert measured.minimized == {"faithful"}
    assert measured.experts == {"positive": "positive"}
    assert measured.models[-1].mu is None


def test_what_was_scored_is_found_again_when_only_the_direction_changes():
    assert reward_identity("brief", RewardSection(direction="minimize")) == reward_identity("brief", RewardSection())
