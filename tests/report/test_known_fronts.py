"""Published points with known answers: the report has to give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options
from rsoup.report.schema import Report

DATA = Path(__file__).parent / "data"
OBJECTIVES = {"r1": "grs.LABEL_0", "r2": "bfsd.FAITHFUL-bfsd.HALLUCINATED"}


def report_on(name: str, **asked) -> Report:
    options = Options(**asked)
    return analyse(read_inputs([DATA / name], options.objectives, options.where), options)


@pytest.fixture(scope="module")
def printed() -> Report:
    return report_on("printed.txt", objectives=OBJECTIVES)


def test_printed_scores_are_kept_to_the_last_digit(printed):
    point = next(point for point in printed.points if point.lam == 0.3)
    assert point.scores["r1"].mean == 1.285310146510601
    assert point.scores["r2"].mean == -0.44826980523765086 - 0.41363132309168577


def test_printed_front(printed):
    on_front = [point.lam for point in printed.points if point.on_front]
    assert on_front == [0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0]


def test_printed_hypervolume_is_the_area_under_the_staircase(printed):
    front = sorted((p.scores["r1"].mean, p.scores["r2"].mean) for p in printed.points if p.on_front)
    left = 0.9837322938069701  # r1 at lambda 0
    bottom = -0.4901799873448908 - 1.0361331396130844  # r2 at lambda 1
    edges = [left] + [x for x, _ in front]
    area = sum((x - before) * (y - bottom) for before, (x, y) in zip(edges, front, strict=False))
    volume = printed.hypervolume["soup"]
    assert volume.value == pytest.approx(area, abs=1e-9)
    assert volume.value == pytest.approx(0.36924059062, abs=1e-9)
    assert volume.reference_point == {"r1": left, "r2": bottom}
    assert "no margin" in printed.reference_rule


def test_printed_gaps(printed):
    low, high = 0.9837322938069701, 1.7814147435873746
    gaps = {gap.lam: gap.gap for gap in printed.lmc["r1"].gaps}
    assert gaps[0.3] == pytest.approx(1.285310146510601 - (0.7 * low + 0.3 * high), abs=1e-12)
    assert gaps[0.0] == gaps[1.0] == 0.0
    assert len(gaps) == 11
    assert all(gap.gap > 0 for own in printed.lmc.values() for gap in own.gaps if gap.lam not in (0.0, 1.0))
    assert printed.hypotheses["lmc"].verdict == "holds"


def test_printed_lambda_belongs_to_the_expert_the_scores_show(printed):
    first = printed.points[0]
    assert (first.lam, first.id, first.weights) == (0.0, "r2", {"r1": 0.0, "r2": 1.0})
    assert any("lambda is kept as the file has it" in note for note in printed.notes)


def test_means_alone_have_no_intervals_and_the_report_says_so(printed):
    assert printed.bootstrap is None
    assert printed.hypervolume["soup"].interval is None
    assert all(score.interval is None for point in printed.points for score in point.scores.values())
    assert any("no intervals" in note for note in printed.notes)


def test_news_mixes_hold_and_the_morl_run_is_dominated():
    report = report_on("news.csv")
    assert report.hypotheses["lmc"].verdict == "holds"
    assert report.hypotheses["coverage"].verdict == "holds"
    assert [point.on_front for point in report.points if point.kind == "morl"] == [False]
    assert report.comparison.runs[0].dominated_by
    assert report.comparison.trainings == {"soup": 2, "morl": 1, "corners": 2}
    alone, summary = 0.2566563526555948, (1.78141474 - 1.31186745) * (1.78704097 - 1.52629794)
    assert report.comparison.runs_alone.hypervolume_ratio.value == pytest.approx(0.5980095932839681 / alone)
    assert report.comparison.hypervolume_ratio.value == pytest.approx(0.5980095932839681 / (alone + summary), rel=1e-3)
    assert report.hypotheses["equal_cost"].verdict == "holds"


def test_images_break_the_line_for_ava_at_nine_tenths_only():
    report = report_on("images.csv")
    below = [(name, gap.lam) for name, own in report.lmc.items() for gap in own.gaps if gap.gap < 0]
    assert below == [("ava", 0.9)]
    assert report.lmc["ava"].minimum.gap == pytest.approx(-0.00213319, abs=1e-8)
    assert report.hypotheses["lmc"].verdict == "fails"
    assert "At lambda 0.9 ava" in report.hypotheses["lmc"].words
    assert report.lmc["cafe"].verdict == "holds"
    assert report.hypotheses["coverage"].verdict == "holds"


def test_locomotion_morl_runs_dominate_the_soups():
    report = report_on("locomotion.csv")
    assert report.hypotheses["coverage"].verdict == "fails"
    assert not any(point.on_front for point in report.points if point.kind in ("soup", "expert"))
    assert report.comparison.coverage_of_soup_by_morl == 1.0
    assert report.comparison.hypervolume_ratio.value < 1
    assert report.comparison.corners == []  # the runs have corners of their own
    assert report.hypotheses["equal_cost"].verdict == "fails"
    assert report.hypotheses["lmc"].verdict == "holds"


def test_a_reference_point_given_is_used():
    report = report_on("images.csv", reference={"ava": 5.0, "cafe": 0.7})
    assert report.reference_rule == "given"
    assert report.hypervolume["base"].value == pytest.approx(0.2508 * 0.083)
    assert report.hypervolume["all"].value == report.hypervolume["soup"].value


def test_both_experts_win_where_their_reward_is_all_that_counts():
    report = report_on("news.csv", prefer=({"summary": 1.0}, {"faithful": 1.0}))
    by_weights = [choice.nearest for choice in report.choices if choice.rule == "lambda = mu"]
    best = [choice.nearest for choice in report.choices if choice.rule == "validation"]
    assert by_weights == ["summary", "faithful"]
    assert best[0] == "summary"
    means = [point.scores["faithful"].mean for point in report.points]
    assert best[1] == report.points[int(np.argmax(means))].id
