"""Benchmarks as objectives of a report, with intervals over their documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from command import Command, assert_refused
from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results, read_samples
from rsoup.pareto.bootstrap import draw_means, interval
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.inputs.figures import in_blocks

from .synthetic import write_line

QUIZ, NORM, TALES = "quiz.acc,none", "quiz.acc_norm,none", "tales.word_perplexity,none"
DOCUMENTS = 60


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_line(tmp_path_factory.mktemp("benchmarks"), prompts=24, documents=DOCUMENTS)


def test_benchmarks_stand_beside_the_rewards_in_their_own_directions(path: Path) -> None:
    measured = read_inputs([path], {}, {})
    assert measured.rewards == ("positive", "faithful", "quiz", "tales")
    assert measured.minimized == {"tales"}
    results = read_results(path)
    assert measured.scores[:, 2].tolist() == pytest.approx([p.benchmarks[QUIZ].mean for p in results.points])
    counts = np.array(measured.counts)
    assert counts[0].tolist() == [24, 24, DOCUMENTS, DOCUMENTS // 2]


def test_errors_and_intervals_are_over_documents(path: Path) -> None:
    """As wide as a bootstrap over the documents of the task alone is, whatever else there is."""
    report = analyse(read_inputs([path], {}, {}), Options(draws=2000))
    results = read_results(path)
    samples = read_samples(path, results)
    for name, label in (("quiz", QUIZ), ("tales", TALES)):
        for point in report.points:
            values = samples.benchmarks[name].parts[point.id][label]
            own = point.scores[name]
            assert own.stderr == pytest.approx(results.point(point.id).benchmarks[label].stderr)
            draws = draw_means(values[None, :, None, None], 2000, 1)[:, 0, 0]
            low, high = interval(draws, np.array(values.mean()), len(values) - 1)
            assert own.interval is not None
            assert own.interval[1] - own.interval[0] == pytest.approx(high - low, rel=0.15)
    alone = analyse(read_inputs([path], {"positive": "positive", "faithful": "faithful"}, {}), Options(draws=100))
    for one, other in zip(report.points, alone.points, strict=True):
        assert one.scores["positive"].stderr == pytest.approx(other.scores["positive"].stderr)


def test_points_are_paired_over_documents(path: Path, tmp_path: Path) -> None:
    """Two points that are right on the same documents differ by nothing, however uncertain both are."""
    measured = read_inputs([path], {}, {})
    report = analyse(measured, Options(draws=500))
    rows = [point.id for point in report.points]
    assert measured.samples is not None
    samples = measured.samples[0]
    gap = samples[:, rows.index("positive"), 2] - samples[:, rows.index("soup-0.80-0.20"), 2]
    results = read_results(path)
    own = read_samples(path, results).benchmarks["quiz"].parts
    expected = own["positive"][QUIZ] - own["soup-0.80-0.20"][QUIZ]
    assert gap.mean() == pytest.approx(expected.mean())
    assert gap.std(ddof=1) / np.sqrt(len(gap)) == pytest.approx(expected.std(ddof=1) / np.sqrt(len(expected)), rel=0.05)


def test_rewards_and_documents_are_drawn_apart(path: Path) -> None:
    """Prompts and documents are others: what is drawn of one tells nothing of the other."""
    measured = read_inputs([path], {}, {})
    assert measured.samples is not None
    assert measured.samples.shape[1] == 24 + DOCUMENTS + DOCUMENTS // 2
    draws = draw_means(measured.samples, 20_000, 0)[:, 0]
    assert np.abs(np.corrcoef(draws.T)[2:, :2]).max() < 0.03
    assert np.abs(np.corrcoef(draws.T)[2, 3]) < 0.03


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ({"norm": "quiz.acc_norm"}, ("positive", "faithful", "tales", "norm")),
        ({"norm": NORM, "acc": "quiz"}, ("positive", "faithful", "tales", "norm", "acc")),
        ({"good": "positive", "acc": "quiz"}, ("good", "acc")),
        ({"tokens": "completion_tokens"}, ("positive", "faithful", "quiz", "tales", "tokens")),
    ],
)
def test_objectives_choose_metrics_of_benchmarks(
    path: Path, objectives: dict[str, str], expected: tuple[str, ...]
) -> None:
    measured = read_inputs([path], objectives, {})
    assert measured.rewards == expected
    assert not measured.bare


def test_directions_can_be_turned(path: Path) -> None:
    measured = read_inputs([path], {"g": "positive", "acc": "quiz", "ease": "-tales"}, {}, ["acc"])
    assert measured.minimized == {"acc"}
    assert measured.scores[0, 2] == pytest.approx(-read_results(path).points[0].benchmarks[TALES].mean)


def test_a_difference_over_other_documents_has_no_interval_and_one_over_the_same_has(path: Path) -> None:
    measured = read_inputs([path], {"g": "positive", "gain": "quiz.acc_norm-quiz.acc", "odd": "positive-quiz"}, {})
    assert measured.bare == {"odd"}
    point = read_results(path).points[0]
    means = [
        point.benchmarks[NORM].mean - point.benchmarks[QUIZ].mean,
        point.scores["positive"].mean - point.benchmarks[QUIZ].mean,
    ]
    assert measured.scores[0, 1:].tolist() == pytest.approx(means)


@pytest.mark.parametrize(
    ("objectives", "words"),
    [({"acc": "quizz"}, "has no label 'quizz'"), ({"tales": "completion_tokens"}, "is a benchmark of")],
)
def test_what_is_no_benchmark_or_takes_the_name_of_one_is_refused(
    path: Path, objectives: dict[str, str], words: str
) -> None:
    with pytest.raises(ResultsError) as refusal:
        read_inputs([path], objectives, {})
    assert words in refusal.value.message


def test_the_report_says_what_intervals_cover(rsoup: Command, path: Path, tmp_path: Path) -> None:
    called = rsoup("pareto", path, "-o", tmp_path / "report", "--fail-if", "quiz<0.2", "--bootstrap", 200)
    assert called.code == 0, called.err
    assert "prompts (24), 60 documents of quiz and 30 documents of tales" in called.err
    assert "tales ↓" in called.out
    content: dict[str, Any] = json.loads((tmp_path / "report" / "pareto.json").read_text())
    assert content["directions"] == {
        "positive": "maximize",
        "faithful": "maximize",
        "quiz": "maximize",
        "tales": "minimize",
    }
    assert content["lmc"]["quiz"]["gaps"]


def test_seeds_are_pooled_over_the_same_documents(path: Path, tmp_path: Path) -> None:
    other = write_line(tmp_path / "1", prompts=24, documents=DOCUMENTS, seed=1)
    measured = read_inputs([path, other], {}, {})
    assert measured.samples is not None
    assert measured.samples.shape[:2] == (2, 24 + DOCUMENTS + DOCUMENTS // 2)
    report = analyse(measured, Options(draws=200))
    assert report.points[0].scores["quiz"].interval is not None
    bare = write_line(tmp_path / "2", prompts=24, seed=2)
    with pytest.raises(ResultsError, match=r"differs from .* in the benchmarks"):
        read_inputs([path, bare], {}, {})


def test_many_documents_are_drawn_in_blocks_that_say_the_same() -> None:
    values = np.random.default_rng(0).normal(size=(2, 9001, 3, 2))
    values[..., 1] = np.nan
    blocks = in_blocks(values, 1500)
    assert blocks.shape == (2, 1500, 3, 2)
    np.testing.assert_allclose(blocks[..., 0].mean(axis=1), values[..., 0].mean(axis=1))
    errors = [own[..., 0].std(axis=1, ddof=1) / np.sqrt(own.shape[1]) for own in (blocks, values)]
    np.testing.assert_allclose(*errors, rtol=0.08)
    values[0, 5, 0, 0] = np.nan
    assert in_blocks(values, 1500) is values


def test_samples_that_are_not_those_of_the_results_are_refused(path: Path, tmp_path: Path) -> None:
    other = write_line(tmp_path, prompts=24, documents=DOCUMENTS)
    file = other.with_name("samples.parquet")
    table = pq.read_table(file)
    pq.write_table(table.slice(0, len(table) - DOCUMENTS - 1), file)
    with pytest.raises(ResultsError, match="does not have the documents of the benchmark tales"):
        read_samples(other, read_results(other))
    column = table.schema.get_field_index(f"benchmark:{QUIZ}")
    pq.write_table(table.set_column(column, f"benchmark:{QUIZ}", table.column(f"benchmark:{NORM}")), file)
    with pytest.raises(ResultsError, match=r"quiz.acc,none: the samples have the mean"):
        read_samples(other, read_results(other))


def test_results_without_benchmarks_hold_no_word_of_them(tmp_path: Path) -> None:
    path = write_line(tmp_path, prompts=4)
    assert "benchmark" not in path.read_text()
    assert not any("benchmark" in name for name in pq.read_table(path.with_name("samples.parquet")).column_names)


def test_a_command_refuses_a_misspelt_metric(rsoup: Command, path: Path, tmp_path: Path) -> None:
    called = rsoup("pareto", path, "-o", tmp_path / "r", "--objective", "a=quiz.acc_nor")
    assert_refused(called, "has no label 'quiz.acc_nor'", "quiz.acc_norm")
    assert not (tmp_path / "r").exists()
