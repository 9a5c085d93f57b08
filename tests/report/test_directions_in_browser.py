"""The page where lower is better for a reward: it says so, and its sliders, lines and downloads follow."""

from __future__ import annotations

import json
import time

import pytest

from rsoup.report import Options, make_report
from rsoup.report.inputs import read_inputs

from .browser import By, Keys, Select, needs_browser, numbers, one, open_points, text
from .synthetic import write_line

pytestmark = needs_browser

HEAD = "id,kind,weight:x,weight:y,score:x,score:y (min)\n"
POINTS = HEAD + "a,expert,1,0,0.9,0.8\nb,expert,0,1,0.1,0.2\nh,soup,0.5,0.5,0.6,0.3\n"


def test_sliders_and_scales_choose_what_is_best(browser, tmp_path):
    open_points(browser, tmp_path, POINTS)
    slider = one(browser, "#mu")
    for key, best in ((Keys.HOME, "a"), (Keys.END, "b")):
        slider.send_keys(key)
        assert text(browser, "#chosen-id") == best
    slider.send_keys(*[Keys.ARROW_LEFT] * 50)
    assert text(browser, "#chosen-id") == "h"  # 0.6 - 0.3 is most
    one(browser, "input[name=scale][value=scaled]").click()
    assert text(browser, "#chosen-id") == "h"


def test_axes_heads_sliders_and_words_say_which_way_is_better(browser, tmp_path):
    open_points(browser, tmp_path, POINTS)
    names = [name.text for name in browser.find_elements(By.CSS_SELECTOR, "#front text.name")]
    assert names == ["x (higher is better)", "y (lower is better)"]
    assert text(browser, "th[data-column=y] button") == "y (lower is better)"
    assert text(browser, "#mu-1") == "y ↓ 50 %"
    assert "y (lower is better)" in one(browser, "#mu").get_attribute("aria-label")
    assert "worst gap, y (lower is better)" in text(browser, "#claims")
    weights, scores = "#chosen .gauge:nth-of-type(3) b", "#chosen .gauge:last-child b"
    assert (text(browser, weights), text(browser, scores)) == ("x", "y ↓")
    open_points(browser, tmp_path, POINTS.replace(" (min)", ""))
    assert "better" not in text(browser, "body")


def test_scores_worth_the_same_rise_together_where_one_is_minimised(browser, tmp_path):
    """More of x makes up for more of y: the line of equal worth goes up, on the screen to smaller y."""
    open_points(browser, tmp_path, POINTS)
    line = one(browser, "#front .iso")
    x1, x2, y1, y2 = (float(line.get_attribute(name)) for name in ("x1", "x2", "y1", "y2"))
    assert (y2 - y1) * (x2 - x1) < 0
    above, chosen = numbers(place(browser, "a")), numbers(place(browser, "h"))
    slope = (y2 - y1) / (x2 - x1)
    assert chosen[1] == pytest.approx(y1 + slope * (chosen[0] - x1), abs=0.5)
    assert above[1] < y1 + slope * (above[0] - x1)  # a has more y than it is worth


def place(browser, point: str) -> str:
    return one(browser, f"#front [data-point='{point}']").get_attribute("transform")


def test_the_downloaded_table_says_it_too(browser, tmp_path, tmp_path_factory):
    open_points(browser, tmp_path, POINTS)
    file = tmp_path_factory.getbasetemp() / "points.csv"
    file.unlink(missing_ok=True)
    one(browser, "#csv").click()
    deadline = time.monotonic() + 5
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    back = read_inputs([file], {}, {})
    file.unlink()
    assert back.minimized == {"y"}
    assert back.scores.tolist() == [[0.9, 0.8], [0.1, 0.2], [0.6, 0.3]]


def test_prompts_are_ordered_by_what_became_better(browser, tmp_path):
    path = write_line(tmp_path, prompts=12, minimized=("faithful",), measures=True)
    measured = read_inputs([path], {"ppl": "base_perplexity"}, {}, ["ppl"])
    options = Options(draws=100, objectives={"ppl": "base_perplexity"}, minimize=("ppl",))
    make_report([path], tmp_path / "report", options)
    browser.get((tmp_path / "report" / "index.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    one(browser, "#front [data-point='faithful']").click()
    orders = [option.text for option in Select(one(browser, "#order")).options]
    assert "faithful: most lowered, which is better" in orders
    assert not any("ppl" in order for order in orders)
    Select(one(browser, "#order")).select_by_value("+faithful")
    first = int(one(browser, "#prompts div").get_attribute("data-row"))
    ids = [model.id for model in measured.models]
    changes = measured.samples[0, :, ids.index("faithful"), 1] - measured.samples[0, :, ids.index("base"), 1]
    assert first == int(changes.argmin())
    assert "ppl" not in text(browser, "#cards")
    shown = json.loads((tmp_path / "report" / "pareto.json").read_text())
    assert shown["directions"] == {"positive": "maximize", "faithful": "minimize", "ppl": "minimize"}
