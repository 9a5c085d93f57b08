"""Limits on the page: set by keys, numbers and dragging, in the front and on parallel axes."""

from __future__ import annotations

import pytest

from rsoup.report import Options, make_report

from .browser import COARSE, ActionChains, By, Keys, needs_browser, one, open_points, screen, text
from .synthetic import write_line

pytestmark = needs_browser


def rows(browser) -> set[str]:
    return set(attributes(browser, "#rows tr", "data-row"))


def attributes(browser, selector: str, name: str) -> list[str]:
    return [own.get_attribute(name) for own in browser.find_elements(By.CSS_SELECTOR, selector)]


def put(browser, name: str, words: str, value: str) -> None:
    field = one(browser, f"input[aria-label='{name} {words}']")
    field.clear()
    field.send_keys(value, Keys.TAB)


def test_a_little_more_costs_what_the_line_says(browser, tmp_path):
    """From half (0.7, 0.5): a quarter of the way to a (0.9, 0.1), and to b (0.2, 0.7)."""
    open_points(browser, tmp_path, COARSE)
    assert text(browser, "#chosen-id") == "half"
    assert text(browser, "#cost-0") == "0.05 more (to 0.750) costs: y −0.100"
    assert text(browser, "#cost-1") == "0.05 more (to 0.550) costs: x −0.125"
    one(browser, "#front [data-point=a]").click()
    assert text(browser, "#cost-0") == "0.05 more (to 0.950): no mix reaches it"
    assert one(browser, "#parallel").is_displayed() is False


def test_a_limit_keeps_table_and_recommendation_within_it(browser, tmp_path):
    open_points(browser, tmp_path, COARSE)
    put(browser, "y", "at least", "0.6")
    assert (rows(browser), text(browser, "#chosen-id")) == ({"b"}, "b")
    assert text(browser, "#limited-note") == "1 of 3 points are within the limits."
    assert len(browser.find_elements(By.CSS_SELECTOR, "#front .mark.out")) == 2
    put(browser, "y", "at least", "0.8")
    assert (rows(browser), text(browser, "#chosen-id")) == (set(), "b")
    assert "No measured mix is within the limits" in text(browser, "#outside")
    one(browser, "#limited-clear").click()
    assert (rows(browser), text(browser, "#chosen-id")) == ({"a", "b", "half"}, "half")
    assert not one(browser, "#limited").is_displayed()


def test_a_limit_is_dragged_in_the_front_and_moved_by_keys(browser, tmp_path):
    open_points(browser, tmp_path, COARSE)
    handle = one(browser, "#front [data-limit=x]")
    assert handle.get_attribute("aria-valuetext") == "no limit"
    field = one(browser, "input[aria-label='x at least']")
    half, right = (one(browser, f"#front [data-point={name}]").location["x"] for name in ("half", "a"))
    ActionChains(browser).drag_and_drop_by_offset(handle, (half + right) // 2 - handle.location["x"], 0).perform()
    assert 0.75 < float(field.get_property("value")) < 0.85
    assert rows(browser) == {"a"}
    before = float(field.get_property("value"))
    one(browser, "#front [data-limit=x]").send_keys(Keys.ARROW_LEFT)
    assert float(field.get_property("value")) == pytest.approx(before - 0.7 / 50, abs=2e-3)
    assert browser.switch_to.active_element.get_attribute("data-limit") == "x"
    browser.switch_to.active_element.send_keys(Keys.DELETE)
    assert rows(browser) == {"a", "b", "half"}
    one(browser, "#front [data-limit=y]").send_keys(Keys.PAGE_UP)  # a tenth of the range above 0.1
    assert rows(browser) == {"b", "half"}


def test_a_minimised_reward_gets_a_ceiling(browser, tmp_path):
    open_points(browser, tmp_path, COARSE.replace("score:y", "score:y (min)"))
    handle = one(browser, "#front [data-limit=y]")
    assert handle.get_attribute("aria-label") == "Limit: y at most"
    handle.send_keys(Keys.PAGE_DOWN)
    assert rows(browser) == {"a", "half"}
    assert text(browser, "#cost-1").startswith("0.05 less (to ")


def drag(browser, element, down: tuple[int, int], up: tuple[int, int]) -> None:
    moves = ActionChains(browser).move_to_element_with_offset(element, *down).click_and_hold()
    moves.move_by_offset(up[0] - down[0], up[1] - down[1]).release().perform()


def test_parallel_axes_brush_and_clear(triangle):
    assert len(triangle.find_elements(By.CSS_SELECTOR, "#parallel .thread")) == 16
    assert one(triangle, "#parallel .thread.chosen").get_attribute("data-id") == text(triangle, "#chosen-id")
    grip = one(triangle, "#parallel [data-axis=brief]")
    height = grip.size["height"]
    drag(triangle, grip, (0, -height // 2 + 2), (0, 0))  # the better half
    kept = rows(triangle)
    assert 0 < len(kept) < 16
    assert len(triangle.find_elements(By.CSS_SELECTOR, "#parallel .thread:not(.out)")) == len(kept)
    low = float(one(triangle, "input[aria-label='brief at least']").get_property("value"))
    means = triangle.execute_script(
        "return JSON.parse(data.textContent).report.points.map((point) => [point.id, point.scores.brief.mean])"
    )
    assert kept == {name for name, mean in means if mean >= low}
    assert text(triangle, "#chosen-id") in kept
    one(triangle, "#parallel [data-axis=brief]").click()
    assert len(rows(triangle)) == 16


def test_parallel_axes_are_reordered_and_turned(triangle):
    axes = lambda: attributes(triangle, "#parallel .move", "data-move")  # noqa: E731
    assert axes() == ["positive", "faithful", "brief"]
    one(triangle, "button[aria-label='Move the axis of brief to the left']").click()
    assert axes() == ["positive", "brief", "faithful"]
    assert triangle.switch_to.active_element.get_attribute("aria-label") == "Move the axis of brief to the left"
    width = one(triangle, "#parallel svg").size["width"]
    drag(triangle, one(triangle, "#parallel [data-move=positive]"), (0, 0), (width // 2, 0))
    assert axes() == ["brief", "positive", "faithful"]
    ends = lambda: [own.text for own in triangle.find_elements(By.CSS_SELECTOR, "#parallel svg > text:not(.name)")][:2]  # noqa: E731
    top, bottom = ends()
    one(triangle, "button[aria-label='Turn the axis of brief round']").click()
    assert ends() == [bottom, top]


def test_measures_are_axes_beside_two_rewards(browser, tmp_path):
    make_report([write_line(tmp_path, prompts=8, measures=True)], tmp_path / "report", Options(draws=100))
    screen(browser, 390, 844)
    browser.get((tmp_path / "report" / "index.html").as_uri())
    names = attributes(browser, "#parallel .move", "data-move")
    assert names[:2] == ["positive", "faithful"]
    assert {"kl", "completion_tokens", "base_perplexity"} <= set(names)
    put(browser, "kl", "at most", "0")
    assert rows(browser) == set()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
