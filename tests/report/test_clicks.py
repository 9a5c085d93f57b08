"""Choices that a page exported, read back and followed."""

from __future__ import annotations

import json

import pytest

from rsoup.errors import ResultsError
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs

from .synthetic import write_line


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return read_inputs([write_line(tmp_path_factory.mktemp("line"), prompts=8)], {}, {})


def content_of(measured, choices, **update):
    about = measured.sources[0].about
    content = {"schema": 1, "rewards": list(measured.rewards), "prompts": about["prompts"]["sha256"]}
    content |= {"seed": about["seed"], "adapters": about["adapters"], "choices": choices}
    return content | update


def chosen(measured, folder, content):
    (folder / "choices.json").write_text(json.dumps(content))
    options = Options.from_flags(choices=folder / "choices.json", bootstrap=100)
    return analyse(measured, options).choices[0]


def click(left, right, told, prompt=0):
    return {"prompt": prompt, "left": left, "right": right, "chosen": told}


def test_choices_for_the_faithful_lead_to_the_faithful_mix(measured, tmp_path):
    told = [click("positive", "faithful", "right"), click("soup-0.20-0.80", "soup-0.80-0.20", "left")] * 8
    found = chosen(measured, tmp_path, content_of(measured, [*told, click("positive", "faithful", "skip")]))
    assert found.rule == "choices"
    assert found.asked["faithful"] > 0.6
    assert found.intervals["faithful"][0] > 0.5
    assert found.words.startswith("By 16 choices the rewards count ")
    assert "agrees with 16 of 16" in found.words
    assert found.command.startswith("rsoup mix runs/quickstart/adapters/")
    assert found.probability > 0.8


def test_few_choices_say_that_it_is_not_known(measured, tmp_path):
    found = chosen(measured, tmp_path, content_of(measured, [click("positive", "faithful", "tie")]))
    assert "not known yet" in found.words
    assert found.intervals["positive"][1] - found.intervals["positive"][0] > 0.7


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"rewards": ["positive", "brief"]}, "this report is on positive, faithful"),
        ({"prompts": "00"}, "other prompts"),
        ({"seed": 5}, "other seed"),
        ({"adapters": {"positive": "ff"}}, "other adapter positive"),
        ({"choices": [click("positive", "brief", "left")]}, "'brief' is no mix"),
        ({"choices": [click("positive", "faithful", "both")]}, "choices.0.chosen"),
        ({"schema": 2}, "schema"),
    ],
)
def test_choices_on_other_answers_are_refused(measured, tmp_path, update, words):
    with pytest.raises(ResultsError, match=words):
        chosen(measured, tmp_path, content_of(measured, []) | update)


def test_what_is_no_file_of_choices_is_refused(tmp_path):
    (tmp_path / "no.json").write_text("{")
    for path, words in ((tmp_path / "no.json", "is not a file of choices"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(ResultsError, match=words):
            Options.from_flags(choices=path)
