"""The page in a real browser: it answers, keeps to itself, and fits screens and paper."""

from __future__ import annotations

import json
import re
import time

import pytest

from rsoup.pareto.choice import simplex_lattice
from rsoup.report import Options, make_report
from rsoup.report.choices import mix_command
from rsoup.report.inputs import read_inputs

from .browser import (
    COARSE,
    ActionChains,
    By,
    Keys,
    needs_browser,
    one,
    open_points,
    screen,
    text,
)
from .synthetic import write_line

pytestmark = needs_browser


def test_the_slider_moves_the_point(line):
    slider = one(line, "#mu")
    slider.send_keys(Keys.HOME)
    assert text(line, "#chosen-id") == "positive"
    before = one(line, "#front .ring").get_attribute("transform")
    slider.send_keys(Keys.END)
    assert text(line, "#chosen-id") == "faithful"
    assert one(line, "#front .ring").get_attribute("transform") != before
    assert text(line, "#mu-1") == "faithful 100 %"
    assert (
        text(line, "#command") == "rsoup mix runs/quickstart/adapters/faithful -w 1 --method factors -o soup-0.00-1.00"
    )
    assert one(line, "[data-answer=faithful]").get_attribute("class") == "answer expert chosen"


def test_weights_may_follow_the_preference(line):
    one(line, "#rule-weights").click()
    slider = one(line, "#mu")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 38)
    assert text(line, "#chosen-id") == "soup-0.60-0.40"
    assert "-w 0.62 -w 0.38" in text(line, "#command")
    assert "nearest measured soup" in text(line, "#chosen")


def test_a_point_is_chosen_by_a_click_and_given_back(line):
    one(line, "#front [data-point='soup-0.40-0.60']").click()
    assert text(line, "#chosen-id") == "soup-0.40-0.60"
    assert "lambda 0.60" in text(line, "#chosen")
    one(line, "#back").click()
    assert text(line, "#chosen-id") == "positive"


def test_the_table_sorts(line):
    one(line, "th[data-column=faithful] button").click()
    assert text(line, "#rows tr th") == "positive"
    one(line, "th[data-column=faithful] button").click()
    assert text(line, "#rows tr th") == "faithful"
    assert one(line, "th[data-column=faithful]").get_attribute("aria-sort") == "descending"
    assert text(line, "th[data-column=faithful] button") == "faithful ▼"
    assert text(line, "th[data-column=positive] button") == "positive"


def test_points_without_a_value_come_last_both_ways(line):
    for order in (["positive", "faithful"], ["faithful", "positive"]):
        one(line, "th[data-column=lambda] button").click()
        rows = [row.text for row in line.find_elements(By.CSS_SELECTOR, "#rows th")]
        assert [rows[0], rows[-3]] == order
        assert set(rows[-2:]) == {"base", "morl-0.50-0.50"}  # no lambda


def test_the_chosen_row_is_marked(line):
    one(line, "#front [data-point='soup-0.40-0.60']").click()
    current = line.find_elements(By.CSS_SELECTOR, "#rows [aria-current=true]")
    assert [row.get_attribute("data-row") for row in current] == ["soup-0.40-0.60"]
    assert one(line, "#rows [aria-current=true] th").value_of_css_property("box-shadow") != "none"
    assert one(line, "#rows tr:not(.chosen) th").value_of_css_property("box-shadow") == "none"


def test_the_table_comes_as_csv_that_a_report_reads(line, line_page, tmp_path_factory):
    one(line, "#csv").click()
    file = tmp_path_factory.getbasetemp() / "points.csv"
    deadline = time.monotonic() + 5
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    back, shown = read_inputs([file], {}, {}), json.loads((line_page.parent / "pareto.json").read_text())
    assert [model.id for model in back.models] == [point["id"] for point in shown["points"]]
    assert back.scores.tolist() == [
        [point["scores"][name]["mean"] for name in back.rewards] for point in shown["points"]
    ]
    assert back.models[-1].mu == {"positive": 0.5, "faithful": 0.5}


def test_the_page_keeps_to_itself_and_has_no_errors(browser, line_page):
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(line_page.as_uri())
    one(browser, "#mu").send_keys(Keys.END)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [line_page.as_uri()]
    assert browser.get_log("browser") == []


def test_eleven_points_and_two_hundred_prompts_are_ready_within_two_seconds(browser, tmp_path):
    report = make_report([write_line(tmp_path, prompts=200, lambdas=11)], tmp_path / "report", Options(draws=100))
    assert len(report.points) == 11 + 2
    page = tmp_path / "report" / "index.html"
    browser.get(page.as_uri())
    one(browser, "#mu").send_keys(Keys.HOME)
    ready = "const t = performance.timing; return t.loadEventEnd - t.navigationStart"
    assert browser.execute_script(ready) < 2000
    assert page.stat().st_size < 8_000_000


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_window(browser, line_page, triangle_page, width):
    for page in (line_page, triangle_page):
        screen(browser, width, 844)
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_long_names_of_rewards_stay_inside_the_window(browser, tmp_path, width):
    names = ["reward_model_deberta_v3_large_helpfulness_v2_normalized_0001", "W" * 60]
    head = "id,kind,lambda," + ",".join(f"score:{name},stderr:{name}" for name in names)
    rows = [f",soup,{lam},{0.9 - lam / 2},0.02,{0.1 + lam / 2},0.02" for lam in (0, 0.5, 1)]
    open_points(browser, tmp_path, "\n".join([head, *rows]), size=(width, 844), knee=True)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside = """
        return [...document.querySelectorAll("svg text")].filter((text) => {
            const [own, plot] = [text, text.ownerSVGElement].map((node) => node.getBoundingClientRect());
            return own.left < plot.left || own.right > plot.right || own.top < plot.top || own.bottom > plot.bottom;
        }).length;
    """
    assert browser.execute_script(outside) == 0
    up = browser.find_elements(By.CSS_SELECTOR, "#front svg > text.name")[1]
    words, title = browser.execute_script("return [...arguments[0].childNodes].map((node) => node.textContent)", up)
    assert re.fullmatch("W{10,50}…", words)
    assert title == names[1]


def test_all_of_a_long_table_and_of_a_long_text_is_printed(browser, tmp_path):
    names = ["helpful", "harmless", "brief", "faithful", "polite"]
    head = "id,kind," + ",".join(
        [f"weight:{name}" for name in names] + [f"score:{name},stderr:{name}" for name in names]
    )
    lattice = simplex_lattice(5, 4)
    rows = [
        f",{'expert' if max(row) == 1 else 'soup'}," + ",".join([*map(str, row), *(f"{0.2 + x / 3},0.02" for x in row)])
        for row in lattice
    ]
    open_points(browser, tmp_path, "\n".join([head, *rows]), size=(718, 1000), knee=True)  # A4 between its margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cut = """
        return [...document.querySelectorAll(".scroll, .text, .prompts, body")].filter((node) =>
            node.scrollWidth > node.clientWidth + 1 || node.scrollHeight > node.clientHeight + 1).length;
    """
    assert len(browser.find_elements(By.CSS_SELECTOR, "#rows tr")) == 70
    assert browser.execute_script(cut) == 0
    assert not one(browser, "#zoom-in").is_displayed()
    assert not one(browser, "#axis-x").is_displayed()
    assert "best measured" not in text(browser, "#asked")
    assert one(browser, "#asked button").is_displayed()


def test_a_choice_asked_for_gives_its_own_command(browser, tmp_path):
    open_points(browser, tmp_path, COARSE, prefer=({"x": 0.37, "y": 0.63},))
    assert text(browser, "#asked button b") == "Recommended, by validation: x 0.37, y 0.63"
    assert text(browser, "#asked button + button b") == "For comparison, weights = preference: x 0.37, y 0.63"
    one(browser, "#asked button + button").click()
    assert "-w 0.37 -w 0.63" in text(browser, "#command")
    assert "nearest measured soup half" in text(browser, "#chosen")
    one(browser, "#front [data-point=half]").click()
    assert "-w 0.5 -w 0.5" in text(browser, "#command")


def test_the_page_and_python_give_every_point_the_same_command(browser, tmp_path):
    rows = [(1, 0), (0.875, 0.125), (0.25, 0.5), (0.1234, 0.8766), (0, 1), (-0.5, 1.5)]
    text = "kind,weight:y,weight:x,score:x,score:y\n" + "\n".join(f"soup,{y},{x},{x},{y}" for y, x in rows)
    open_points(browser, tmp_path, text)
    measured = read_inputs([tmp_path / "points.csv"], {}, {})
    for model in measured.models:
        one(browser, f"#rows tr[data-row='{model.id}']").click()
        assert browser.execute_script("return command.textContent") == mix_command(measured, model.weights)


def test_points_that_nothing_mixes_have_no_command_and_no_error(browser, tmp_path):
    open_points(
        browser, tmp_path, "id,kind,x,y\nc1,checkpoint,1,0\nc2,checkpoint,0.5,0.5\ns,soup,0.2,0.1\nb,base,0,0\n"
    )
    for name in ("c1", "c2", "b"):
        one(browser, f"#rows tr[data-row='{name}']").click()
        assert text(browser, "#chosen-id") == name
        assert not one(browser, "#command").is_displayed()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_standard_error_without_an_interval_is_shown(browser, tmp_path):
    open_points(browser, tmp_path, COARSE)
    ActionChains(browser).move_to_element(one(browser, "#front [data-point=half]")).perform()
    assert "x 0.700 ± 0.020" in text(browser, "#tip")
    assert "± 0.030" in text(browser, "#chosen .gauge:last-child")
    assert "0.500 ± 0.030" in text(browser, "[data-row=half]")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#front .error")) == 6


def test_everything_to_operate_has_a_name(line):
    script = """
        const named = (node) => node.textContent.trim() || node.getAttribute("aria-label") || node.labels?.length;
        const all = document.querySelectorAll("button, input, select, [role=button], [role=listbox]");
        return [...all].filter((node) => !named(node)).map((node) => node.outerHTML);
    """
    assert line.execute_script(script) == []


def shares(browser) -> list[int]:
    """Return the shares of the sliders, which say the same in every place and sum to 100."""
    thumbs = []
    for slider in browser.find_elements(By.CSS_SELECTOR, "#sliders input"):
        thumb, name = slider.get_property("value"), slider.get_attribute("id")
        assert text(browser, f"output[for={name}]") == f"{thumb} %"
        assert f" {thumb} % of" in slider.get_attribute("aria-valuetext")
        thumbs.append(int(thumb))
    assert sum(thumbs) == 100
    return thumbs


def test_three_rewards_have_three_sliders(triangle):
    assert shares(triangle) == [34, 33, 33]
    one(triangle, "#mu-2").send_keys(Keys.END)
    assert shares(triangle) == [0, 0, 100]
    assert text(triangle, "#chosen-id") == "brief"
    one(triangle, "#axis-x").send_keys("brief")
    assert text(triangle, "#front svg > text.name") == "brief"
    assert len(triangle.find_elements(By.CSS_SELECTOR, "#front .mark")) == 16


def test_a_slider_takes_its_share_from_the_others_in_proportion(triangle):
    first = one(triangle, "#mu-0")
    first.send_keys(Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT)  # with nothing to keep, the others share alike
    assert shares(triangle) == [98, 1, 1]
    first.send_keys(Keys.HOME)
    assert shares(triangle) == [0, 50, 50]
    one(triangle, "#mu-1").send_keys(*[Keys.ARROW_RIGHT] * 25)
    assert shares(triangle) == [0, 75, 25]
    first.send_keys(*[Keys.ARROW_RIGHT] * 60)
    assert shares(triangle) == [60, 30, 10]
    first.send_keys(*[Keys.ARROW_LEFT] * 60)  # sixty small steps there and back lose nothing
    assert shares(triangle) == [0, 75, 25]


def test_each_badge_says_which_claim_it_judges(line):
    told = [(own.text, own.get_attribute("title")) for own in line.find_elements(By.CSS_SELECTOR, "#verdicts li")]
    names = ["Linear mode connectivity", "Pareto coverage", "Pareto coverage at equal cost"]
    claims = [own.text for own in line.find_elements(By.CSS_SELECTOR, ".claim p:first-child")]
    for (words, title), name in zip(told, names, strict=True):
        assert re.match(rf"(holds|holds within error|fails)\s+{name}: ", words)
        assert title in claims
    assert one(line, "#verdicts-title").is_displayed()
    assert text(line, "#spread") == "Numbers in brackets are 95 % intervals; ± is one standard error."


def test_a_page_without_claims_or_errors_promises_none(browser, tmp_path):
    open_points(browser, tmp_path, "id,kind,score:x,score:y\na,model,0.9,0.1\nb,model,0.2,0.7\n")
    assert not one(browser, "#verdicts-title").is_displayed()
    assert not one(browser, "#spread").is_displayed()
