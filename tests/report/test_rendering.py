"""The page as a file: one piece, nothing fetched, nothing run that a model wrote."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from rsoup.evaluation.results import PointSamples, Samples, read_results, read_samples
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options
from rsoup.report.rendering import render_page

from .synthetic import write_line

HOSTILE = "</script><script>alert(1)</script><!--{{script}}-->\u2028<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = write_line(tmp_path_factory.mktemp("page"), prompts=6, hostile=HOSTILE)
    return analyse(read_inputs([path], {}, {}), Options(draws=100)), read_samples(path, read_results(path))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_data_come_through_whole(parts):
    report, texts = parts
    data = data_of(render_page(report, texts))
    assert data["report"] == report.model_dump(mode="json", by_alias=True)
    assert data["texts"]["prompts"] == list(texts.prompts)
    assert data["texts"]["points"]["base"]["completions"] == list(texts.points["base"].completions)
    assert HOSTILE in data["texts"]["points"]["base"]["completions"][0]


def test_columns_come_as_texts_and_long_ones_are_cut(parts):
    report, texts = parts
    own = dataclasses.replace(
        texts, columns={"topic": [None, 2, 0.5, True, {"a": ["é"]}, "x" * 401], "again": list(texts.prompts)}
    )
    columns = data_of(render_page(report, own))["texts"]["columns"]
    assert columns == {"topic": ["", "2", "0.5", "true", '{"a": ["é"]}', "x" * 400 + "…"]}


def test_a_completion_cannot_leave_its_element(parts):
    page = render_page(*parts)
    assert page.count("<script") == 2
    assert "onerror=alert" in page  # as text inside the data
    assert "<img" not in page


def test_only_this_script_and_style_may_run(parts):
    page = render_page(*parts)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*)</script>", page, re.S)[1]
    style = re.search(r"<style>(.*)</style>", page, re.S)[1]
    for text in (script, style):
        assert "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")


def test_nothing_points_to_the_network(parts):
    page = render_page(*parts)
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_a_report_without_completions_has_a_page(parts):
    assert data_of(render_page(parts[0], None))["texts"] is None


def test_a_page_keeps_as_many_prompts_as_stay_small(parts):
    report, _ = parts
    long = tuple("word " * 2000 for _ in range(100))
    points = {
        point.id: PointSamples(
            completions=long,
            scores={name: np.zeros(100) for name in report.rewards},
            tokens=np.ones(100, dtype=np.int32),
            ended_by_eos=np.ones(100, dtype=bool),
        )
        for point in report.points
    }
    page = render_page(report, Samples(tuple(map(str, range(100))), long, points))
    data = data_of(page)["texts"]
    assert 1 <= len(data["prompts"]) < data["total"] == 100
    assert len(data["points"]["base"]["completions"]) == len(data["prompts"])
    assert len(page.encode()) < 8_000_000
