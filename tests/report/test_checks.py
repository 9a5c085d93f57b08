"""What ``--fail-if`` says, and when it fails."""

from __future__ import annotations

import json

import pytest

from command import assert_refused
from rsoup.errors import ResultsError
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs

from .synthetic import write_line

POINTS = "id,kind,lambda,x,y\na,expert,0,0.9,0.1\nh,soup,0.5,0.7,0.5\nb,expert,1,0.2,0.7\nbase,base,,0.95,0.95\n"


@pytest.fixture
def measured(tmp_path):
    (tmp_path / "points.csv").write_text(POINTS)
    return read_inputs([tmp_path / "points.csv"], {}, {})


def checks(measured, *conditions, **options):
    return analyse(measured, Options.from_flags(fail_if=conditions, **options)).checks


@pytest.mark.parametrize(
    ("condition", "failed", "point"),
    [
        ("x<0.9", False, "a"),  # may be met exactly
        ("x<=0.9", True, "a"),
        ("y<0.8", True, "b"),  # the base has more, and is no mix
        ("x>0.1", True, "b"),
        ("x>0.3", False, "b"),
        ("x@0.5<0.8", True, "h"),
        ("x@h<0.7", False, "h"),
        ("x@base<0.9", False, "base"),
        (" y @ b >= 0.7 ", True, "b"),
    ],
)
def test_a_condition_by_hand(measured, condition, failed, point):
    (found,) = checks(measured, condition)
    assert (found.failed, found.point) == (failed, point)
    assert found.clear is None


def test_one_mix_has_to_keep_all_conditions(measured):
    assert not any(own.failed for own in checks(measured, "x<0.7", "y<0.5"))
    found = checks(measured, "x<0.8", "y<0.5")
    assert [own.failed for own in found] == [True, False]  # h comes nearest: 0.1 of x is missing
    assert {own.point for own in found} == {"h"}
    assert "no mix keeps it together with the others" in found[0].words


def test_a_chosen_mix_is_the_one_that_counts(measured):
    (found,) = checks(measured, "y<0.6", at_least=["x=0.6"])
    assert (found.failed, found.point) == (True, "h")


def test_figures_of_the_front(measured):
    found = checks(measured, "hypervolume<0.19", "hypervolume:expert>0", "gap<0.1", "gap:y<0.1")
    # above (0.2, 0.1): h alone has 0.5 * 0.4, the experts lie on the edge
    assert [(own.failed, own.value) for own in found] == [
        (False, pytest.approx(0.2)),
        (False, 0.0),
        (False, pytest.approx(0.1)),  # h has 0.7, 0.5, the line 0.55, 0.4
        (False, pytest.approx(0.1)),
    ]


def test_the_gap_of_a_minimised_reward_is_below_zero_where_it_is_worse(tmp_path):
    (tmp_path / "points.csv").write_text(POINTS.replace("lambda,x,y", "lambda,x,y (min)"))
    (found,) = checks(read_inputs([tmp_path / "points.csv"], {}, {}), "gap<0")
    assert (found.failed, found.value) == (True, pytest.approx(-0.1))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("z<1", "'z' is no reward"),
        ("x", "is no condition"),
        ("x=1", "is no condition"),
        ("x<one", "'one' is not a number"),
        ("x<nan", "'nan' is no limit"),
        ("x@0.3<1", "no point was measured at '0.3'"),
    ],
)
def test_what_cannot_be_judged_is_refused(measured, condition, words):
    with pytest.raises(ResultsError, match=words):
        checks(measured, condition)


def test_intervals_say_whether_the_limit_is_clear(tmp_path):
    measured = read_inputs([write_line(tmp_path, measures=True)], {}, {})
    sure, unsure = checks(measured, "faithful@faithful<0.9", "faithful@faithful<0.53", bootstrap=200)
    assert (sure.failed, sure.clear) == (True, True)
    assert (unsure.failed, unsure.clear) == (True, False)
    assert "clear of the limit" in sure.words
    assert "reaches over" in unsure.words
    (measure,) = checks(measured, "completion_tokens@0.4>1", bootstrap=200)
    assert (measure.failed, measure.interval) == (True, None)


def test_the_command_writes_the_report_and_exits_with_three(rsoup, tmp_path):
    (tmp_path / "points.csv").write_text("id,kind,x\na,soup,0.5\nb,soup,0.7\n")
    called = rsoup("pareto", tmp_path / "points.csv", "--fail-if", "x<2", "--json", "-o", tmp_path / "out")
    assert called.code == 3
    assert "failed: x<2: no mix keeps it; the nearest, b, has 0.7, without interval." in called.err
    assert [own["failed"] for own in json.loads(called.out)["checks"]] == [True]
    assert (tmp_path / "out/index.html").exists()
    called = rsoup("pareto", tmp_path / "points.csv", "--fail-if", "x<0.6", "-o", tmp_path / "out")
    assert (called.code, "kept: x<0.6: b keeps it with 0.7" in called.err) == (0, True)
    called = rsoup("pareto", tmp_path / "points.csv", "--fail-if", "xx<1", "-o", tmp_path / "no")
    assert_refused(called, "'xx' is no reward", "Did you mean x?")
    assert not (tmp_path / "no").exists()
