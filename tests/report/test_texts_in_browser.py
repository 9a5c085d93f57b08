"""Prompts and completions in a real browser: found, read, and shown as text."""

from __future__ import annotations

import re

from rsoup.report import Options, make_report

from .browser import HOSTILE, By, Keys, Select, needs_browser, one, text
from .synthetic import write_line

pytestmark = needs_browser


def test_search_finds_a_prompt(line):
    one(line, "#search").send_keys("post 137")
    assert text(line, "#found") == "1 of 200 prompts"
    assert "Post 137." in text(line, "#prompt")
    one(line, "#search").send_keys(" nowhere")
    assert text(line, "#found") == "0 of 200 prompts"
    assert text(line, "#no-match") == "No prompt has these words."
    assert not one(line, "#prompt").is_displayed()
    assert not one(line, "#cards").is_displayed()
    assert one(line, "#prompts").get_attribute("aria-activedescendant") is None
    one(line, "#search").clear()
    one(line, "#search").send_keys("p")
    assert "Post 137." in text(line, "#prompt")  # as before


def test_a_slice_of_the_data_is_found_by_its_columns_and_summed_up(line):
    one(line, "#search").send_keys("product:lamp stars:3")  # of every fourth and every fifth row
    assert text(line, "#found") == "10 of 200 prompts"
    assert text(line, "#prompts div").endswith("Post 13.")
    assert text(line, "#columns") == "product\nlamp\nstars\n3"
    point, mean = line.execute_script(
        "const { points } = JSON.parse(data.textContent).texts, id = slice.textContent.split(' ')[2];"
        "const rows = [...Array(10).keys()].map((k) => 13 + 20 * k);"
        "return [id, rows.reduce((sum, row) => sum + points[id].scores.positive[row], 0) / 10]"
    )
    told = text(line, "#slice")
    assert told.startswith(f"Means of {point} over them: positive ")
    assert abs(float(told.split(": positive ")[1].split(",")[0]) - mean) < 0.01
    one(line, "#search").clear()
    one(line, "#search").send_keys(Keys.SPACE)
    assert text(line, "#slice") == ""


def test_an_order_by_gain_follows_the_chosen_point(line, line_page):
    Select(one(line, "#order")).select_by_value("+faithful")
    one(line, "#prompts div").click()
    kept = text(line, "#prompt")
    line.execute_script("document.querySelector('#prompts').scrollTop = 300")
    orders = []
    for point in ("soup-0.40-0.60", "faithful"):
        one(line, f"#front [data-point='{point}']").click()
        rows = [int(option.get_attribute("data-row")) for option in line.find_elements(By.CSS_SELECTOR, "#prompts div")]
        gains = line.execute_script(
            "const own = JSON.parse(data.textContent).texts.points;"
            "return own[arguments[0]].scores.faithful.map((value, k) => value - own.base.scores.faithful[k])",
            point,
        )
        orders.append(rows)
        assert rows == sorted(rows, key=lambda row: -gains[row])
    assert orders[0] != orders[1]
    assert text(line, "#prompt") == kept
    assert line.execute_script("return document.querySelector('#prompts').scrollTop") == 300
    assert text(line, "#prompts [aria-selected=true]") == kept


def test_the_list_of_prompts_answers_the_keyboard(line):
    prompts = one(line, "#prompts")
    at = lambda: int(one(line, "#prompts [aria-selected=true]").get_attribute("data-row"))  # noqa: E731
    for key, row in ((Keys.END, 199), (Keys.HOME, 0), (Keys.ARROW_DOWN, 1), (Keys.ARROW_UP, 0)):
        prompts.send_keys(key)
        assert at() == row
    prompts.send_keys(Keys.PAGE_DOWN)
    page = at()
    assert 5 < page < 30
    prompts.send_keys(Keys.PAGE_DOWN, Keys.PAGE_UP)
    assert at() == page


def test_what_is_spoken_changes_only_with_what_it_tells(line):
    line.execute_script(
        "window.said = [];"
        "new MutationObserver(() => said.push(spoken.textContent)).observe(spoken, { childList: true })"
    )
    one(line, "#prompts").send_keys(Keys.ARROW_DOWN)
    one(line, "#marks").click()
    one(line, "#mu").send_keys(Keys.END)
    one(line, "#mu").send_keys(Keys.ARROW_LEFT)  # still the same point
    said = line.execute_script("return said")
    assert len(said) == 2
    assert said[0].startswith("Prompt: ")
    assert said[0].endswith("Post 1.")
    assert said[1].startswith("faithful, expert")


def test_a_long_text_scrolls_below_its_scores_and_an_empty_one_says_so(browser, tmp_path):
    make_report([write_line(tmp_path, prompts=4, hostile="word " * 3000)], tmp_path / "report", Options(draws=100))
    page = tmp_path / "report" / "index.html"
    page.write_text(
        re.sub(r'"completions":\["[^"]*","[^"]*"', r'"completions":["","' + "word " * 3000 + '"', page.read_text())
    )
    browser.get(page.as_uri())
    assert text(browser, "[data-answer=base] .text .quiet") == "(empty)"
    one(browser, "#prompts").send_keys(Keys.ARROW_DOWN)
    long = one(browser, "[data-answer=base] .text")
    assert long.size["height"] < 500
    assert long.get_attribute("tabindex") == "0"
    assert one(browser, "[data-answer=base] .gauge").location["y"] < long.location["y"]
    assert one(browser, "#prompt").get_attribute("tabindex") is None


def test_what_a_model_wrote_is_shown_and_never_run(line):
    assert HOSTILE in text(line, "[data-answer=base] .text")
    assert HOSTILE in text(line, "[data-answer=positive] .text")
    assert line.execute_script("return window.ran === undefined")
    assert not line.find_elements(By.CSS_SELECTOR, "#cards img, #cards script")


def test_words_that_differ_from_the_base_are_marked(line):
    base = text(line, "[data-answer=base] .text").split()
    marked = [mark.text for mark in line.find_elements(By.CSS_SELECTOR, "[data-answer=faithful] mark")]
    words = text(line, "[data-answer=faithful] .text").split()
    assert len(words) - len(marked) <= len(base)
    assert "<script>window.ran" not in marked
    one(line, "#marks").click()
    assert not line.find_elements(By.TAG_NAME, "mark")
