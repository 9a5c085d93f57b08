"""Measures of the completions as objectives of a report, beside rewards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results, read_samples
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.rendering import render_page

from .synthetic import write_line

TOKENS = {"tokens": "completion_tokens"}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_line(tmp_path_factory.mktemp("measured"), prompts=12, measures=True)


def test_a_measure_stands_beside_all_rewards_and_a_named_reward_stands_alone(path):
    assert read_inputs([path], TOKENS, {}).rewards == ("positive", "faithful", "tokens")
    assert read_inputs([path], {"good": "positive", **TOKENS}, {}).rewards == ("good", "tokens")


def test_lengths_and_divergences_are_those_of_each_prompt(path):
    measured = read_inputs([path], {**TOKENS, "kl": "kl", "ended": "ended_by_eos"}, {}, ["tokens", "kl"])
    own = read_samples(path, read_results(path))
    assert measured.samples is not None
    row = [model.id for model in measured.models].index("soup-0.60-0.40")
    point = own.points["soup-0.60-0.40"]
    for column, values in ((2, point.tokens), (3, point.measures["kl"]), (4, point.ended_by_eos)):
        assert measured.samples[0, :, row, column].tolist() == values.tolist()
    assert measured.minimized == {"tokens", "kl"}
    assert measured.bare == frozenset()


def test_a_measure_has_the_interval_that_a_reward_of_the_same_values_has(path):
    """The paired bootstrap does not know which column is a reward."""
    measured = read_inputs([path], {"good": "positive", **TOKENS}, {}, ["tokens"])
    found = analyse(measured, Options(draws=100))
    twin = read_inputs([path], {"good": "positive", "other": "faithful"}, {})
    assert measured.samples is not None
    assert twin.samples is not None
    samples = np.stack([twin.samples[..., 0], -measured.samples[..., 1]], axis=-1)
    gains = replace(twin, scores=samples.mean(axis=(0, 1)), samples=samples, experts=measured.experts)
    expected = analyse(gains, Options(draws=100))
    for kind, own in expected.hypervolume.items():
        assert found.hypervolume[kind].interval == pytest.approx(own.interval)
    for one, other in zip(found.points, expected.points, strict=True):
        low, high = other.scores["other"].interval or (0, 0)
        assert one.scores["tokens"].interval == pytest.approx((-high, -low))
        assert one.front_probability == other.front_probability


def test_a_measure_of_all_completions_together_has_no_interval_and_the_report_says_so(path):
    measured = read_inputs([path], {"ppl": "base_perplexity"}, {}, ["ppl"])
    report = analyse(measured, Options(draws=100))
    assert measured.bare == {"ppl"}
    score = report.points[0].scores["ppl"]
    assert (score.interval, score.stderr) == (None, None)
    assert score.mean == pytest.approx(read_results(path).points[0].extras["base_perplexity"])
    assert report.points[0].scores["positive"].interval is not None
    assert report.hypervolume["all"].interval is not None
    assert any("ppl is known by the means alone" in note for note in report.notes)
    assert not any("same on every prompt" in note for note in report.notes)
    page = render_page(report, measured.texts)
    texts = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["texts"]
    assert set(texts["ranges"]) == {"positive", "faithful"}


def test_a_measure_that_is_not_minimised_is_told(path):
    told = "Higher counts as better for tokens; if lower is better, add --minimize tokens."
    assert told in read_inputs([path], TOKENS, {}).notes
    assert told not in read_inputs([path], TOKENS, {}, ["tokens"]).notes


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ({"tokens": "completion_token"}, "has no label 'completion_token'"),
        ({"positive": "completion_tokens"}, "'positive' is a reward of"),
    ],
)
def test_a_measure_that_is_none_or_takes_a_rewards_name_is_refused(path, objectives, words):
    with pytest.raises(ResultsError) as refusal:
        read_inputs([path], objectives, {})
    assert words in refusal.value.message


def test_runs_of_which_one_was_not_measured_pool_on_what_they_share(path, tmp_path):
    other = write_line(tmp_path, prompts=12, seed=1)
    measured = read_inputs([path, other], TOKENS, {})
    assert measured.samples is not None
    assert measured.samples.shape == (2, 12, 8, 3)
    with pytest.raises(ResultsError, match="the point 'base' has no kl") as refusal:
        read_inputs([path, other], {"kl": "kl"}, {})
    assert str(other) in refusal.value.message
    assert "evaluation.measures" in refusal.value.hint


def test_divergences_from_different_starts_are_not_pooled(path, tmp_path):
    other = write_line(tmp_path, prompts=12, seed=1, measures=True)
    other.write_text(other.read_text().replace('"kl_to": "init"', '"kl_to": "base"'))
    assert read_inputs([path, other], TOKENS, {}).rewards[-1] == "tokens"
    with pytest.raises(ResultsError, match=r"has the KL to base, .* that to init"):
        read_inputs([path, other], {"kl": "kl"}, {})


def test_runs_that_differ_in_a_direction_are_not_pooled(tmp_path):
    paths = [
        write_line(tmp_path / "0", prompts=4),
        write_line(tmp_path / "1", prompts=4, seed=1, minimized=("faithful",)),
    ]
    with pytest.raises(ResultsError, match="lower scores are better"):
        read_inputs(paths, {}, {})


def test_runs_with_and_without_measures_are_pooled_on_their_rewards(path, tmp_path):
    other = write_line(tmp_path, prompts=12, seed=1)
    for inputs in ([path, other], [other, path]):
        measured = read_inputs(inputs, {}, {})
        assert measured.rewards == ("positive", "faithful")
        assert measured.samples is not None
        assert measured.samples.shape[0] == 2
