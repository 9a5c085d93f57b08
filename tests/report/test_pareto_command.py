"""What ``rsoup pareto`` says: where it wrote, which of two mixes to take, what an objective alone means."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Command, assert_refused
from rsoup.errors import ResultsError
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs

from .synthetic import write_line

FEW = ("--bootstrap", 100)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_line(tmp_path, prompts=16)


@pytest.mark.parametrize(
    ("asked", "rewards"),
    [
        (["faithful"], ("faithful",)),
        (["positive", "faithful"], ("positive", "faithful")),
        (["completion_tokens"], ("positive", "faithful", "completion_tokens")),
    ],
)
def test_an_objective_that_the_results_have_is_named_alone(line: Path, asked: list[str], rewards: tuple) -> None:
    alone = Options.from_flags(objective=asked)
    assert alone == Options.from_flags(objective=[f"{name}={name}" for name in asked])
    assert read_inputs([line], alone.objectives, {}).rewards == rewards


def test_an_objective_that_is_not_there_is_told_with_what_is(line: Path, rsoup: Command) -> None:
    assert_refused(rsoup("pareto", line, "--objective", "faithfull"), "no label 'faithfull'", "Did you mean faithful?")
    assert not Path("report").exists()


@pytest.mark.parametrize(
    ("flag", "text", "hint"),
    [
        ("objective", "-kl", "Write NAME=-kl."),
        ("objective", "a=", "--objective tokens=completion_tokens"),
        ("where", "news", "--where dataset=news"),
        ("at_least", "faithful", "--at-least faithful=0.6"),
    ],
)
def test_a_pair_that_is_none_is_refused_with_an_example_of_that_flag(flag: str, text: str, hint: str) -> None:
    with pytest.raises(ResultsError) as refusal:
        Options.from_flags(**{flag: [text]})
    assert hint in refusal.value.hint


def test_without_a_folder_the_report_says_where_it_is(line: Path, rsoup: Command) -> None:
    called = rsoup("pareto", line, *FEW)
    assert called.lines[-1] == "report/index.html"
    assert "are in report (-o names another folder)." in called.err
    assert Path("report/pareto.json").exists()
    assert "are in own." in rsoup("pareto", line, *FEW, "--json", "-o", "own").err


def test_of_the_mixes_for_a_preference_one_is_recommended_and_the_other_is_for_comparison(
    line: Path, rsoup: Command
) -> None:
    asked = ("--prefer", "positive=0.6,faithful=0.4", "--prefer", "positive=0.2,faithful=0.8")
    told = [row for row in rsoup("pareto", line, *FEW, *asked).lines if row.startswith(("recommended", "for comp"))]
    assert told == [
        "recommended for positive 0.6, faithful 0.4",
        "for comparison, weights = positive 0.6, faithful 0.4",
        "recommended for positive 0.2, faithful 0.8",
        "for comparison, weights = positive 0.2, faithful 0.8",
    ]


def test_weights_that_are_the_recommended_mix_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("lambda,a,b\n0,5,1\n0.5,4,4\n1,1,5\n")
    measured = read_inputs([tmp_path / "points.csv"], {}, {})
    for share, words in ((0.5, "Weights = mu, the same mix."), (0.6, "Weights = mu; the scores are those of")):
        best, weights = analyse(measured, Options(prefer=({"a": share, "b": 1 - share},))).choices
        assert (best.rule, weights.rule) == ("validation", "lambda = mu")
        assert weights.words.startswith(words)


def test_what_stands_behind_a_plus_minus_is_said_under_the_table(line: Path, rsoup: Command) -> None:
    assert "± is one standard error, [ ] a 95 % interval." in rsoup("pareto", line, *FEW).lines
    Path("points.csv").write_text("lambda,a,b\n0,5,1\n1,1,5\n")
    assert "±" not in rsoup("pareto", "points.csv").out
