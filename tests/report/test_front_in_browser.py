"""The front in a real browser: it answers mouse, fingers and keys."""

from __future__ import annotations

import pytest

from rsoup.report import Options, make_report

from .browser import (
    COARSE,
    ActionChains,
    By,
    Keys,
    Select,
    WebDriverWait,
    middle,
    needs_browser,
    numbers,
    one,
    open_points,
    path,
    place_of,
    screen,
    text,
    touch,
)

pytestmark = needs_browser


def test_points_answer_the_keyboard(line):
    line.execute_script("document.querySelector('#front [tabindex=\"0\"]').focus()")
    ActionChains(line).send_keys(Keys.ARROW_LEFT).perform()
    name = line.execute_script("return document.activeElement.dataset.point")
    assert name == "soup-0.80-0.20"  # the next one to the left of positive
    assert not one(line, "#tip").get_attribute("hidden")
    ActionChains(line).send_keys(Keys.ENTER).perform()
    assert text(line, "#chosen-id") == "soup-0.80-0.20"
    assert line.execute_script("return document.activeElement.dataset.point") == name


def test_hovering_tells_the_scores(line):
    ActionChains(line).move_to_element(one(line, "#front [data-point='morl-0.50-0.50']")).perform()
    assert "morl-0.50-0.50" in text(line, "#tip")
    assert "positive 0.766 [" in text(line, "#tip")


def test_zoom_and_reset(line):
    place = one(line, "#front [data-point=base]").get_attribute("transform")
    one(line, "#zoom-in").click()
    assert one(line, "#front [data-point=base]").get_attribute("transform") != place
    one(line, "#zoom-reset").click()
    assert one(line, "#front [data-point=base]").get_attribute("transform") == place


def test_a_finger_pans_the_chart_once_it_is_zoomed_and_scrolls_the_page_before(browser, line_page):
    screen(browser, 360, 640)
    browser.get(line_page.as_uri())
    before, scrolled = place_of(browser, "base"), "return scrollY"
    touch(browser, *path(middle(browser, "#front svg"), 0, -200))
    WebDriverWait(browser, 3).until(lambda page: page.execute_script(scrolled) > 50)
    assert place_of(browser, "base") == before
    one(browser, "#zoom-in").click()
    before = numbers(place_of(browser, "base"))
    at = middle(browser, "#front svg")
    top = browser.execute_script(scrolled)
    touch(browser, *path(at, 60, -80))
    moved = [new - old for new, old in zip(numbers(place_of(browser, "base")), before, strict=True)]
    scale = 380 / browser.execute_script("return document.querySelector('#front svg').clientWidth")
    assert moved == pytest.approx([60 * scale, -80 * scale], abs=1)
    assert browser.execute_script(scrolled) == top
    assert text(browser, "#chosen-id") == "positive"  # the end of a drag chooses nothing


def test_a_tap_beside_a_point_means_it_and_its_tip_leaves_the_chart_free(browser, line_page):
    screen(browser, 360, 760)
    browser.get(line_page.as_uri())
    x, y = middle(browser, "#front [data-point='soup-0.40-0.60']")
    touch(browser, (x + 8, y - 8))
    assert text(browser, "#chosen-id") == "soup-0.40-0.60"
    overlap = """
        const [tip, chart] = ["#tip", "#front"].map((name) => document.querySelector(name).getBoundingClientRect());
        return Math.max(0, Math.min(tip.bottom, chart.bottom) - Math.max(tip.top, chart.top)) / chart.height;
    """
    assert one(browser, "#tip").is_displayed()
    assert browser.execute_script(overlap) == 0
    touch(browser, middle(browser, "#choice-title"))
    assert not one(browser, "#tip").is_displayed()


def test_a_point_once_touched_does_not_hold_the_chart(browser, line_page):
    screen(browser, 360, 760)
    browser.get(line_page.as_uri())
    touch(browser, middle(browser, "#front [data-point=faithful]"))
    for _ in range(3):
        browser.execute_script("document.querySelector('#zoom-in').click()")  # the point keeps the focus
    at = middle(browser, "#front svg")
    before = numbers(place_of(browser, "base"))
    for _ in range(2):
        touch(browser, *path(at, -100, -100))
    moved = [new - old for new, old in zip(numbers(place_of(browser, "base")), before, strict=True)]
    scale = 380 / browser.execute_script("return document.querySelector('#front svg').clientWidth")
    assert moved == pytest.approx([-200 * scale, -200 * scale], abs=1)
    assert not one(browser, "#tip").is_displayed()


def test_escape_hides_the_tip(line):
    ActionChains(line).move_to_element(one(line, "#front [data-point=base]")).perform()
    assert one(line, "#tip").is_displayed()
    ActionChains(line).send_keys(Keys.ESCAPE).perform()
    assert not one(line, "#tip").is_displayed()


def test_keys_bring_a_point_outside_a_zoomed_chart_into_it(line):
    for _ in range(5):
        one(line, "#zoom-in").click()
    one(line, "#zoom-reset").send_keys(Keys.TAB)
    for _ in range(8):
        x, y = numbers(place_of(line, line.execute_script("return document.activeElement.dataset.point")))
        assert 62 < x < 622
        assert 14 < y < 434
        assert one(line, "#tip").is_displayed()
        ActionChains(line).send_keys(Keys.ARROW_RIGHT).perform()


def test_the_front_is_drawn_anew_where_the_window_becomes_narrow(line):
    assert one(line, "#front svg").get_dom_attribute("viewBox") == "0 0 640 480"
    screen(line, 400, 800)
    WebDriverWait(line, 3).until(lambda page: one(page, "#front svg").get_dom_attribute("viewBox") == "0 0 380 350")


def test_only_a_point_of_the_line_is_ringed_along_lambda(browser, tmp_path):
    rows = [f"at{lam},soup,{lam},{0.9 - lam / 2},{0.1 + lam / 2}" for lam in (0, 0.5, 1, 1.2)]
    open_points(browser, tmp_path, "\n".join(["id,kind,lambda,score:x,score:y", *rows]))
    for point, rings in (("at0.5", 2), ("at1.2", 0)):
        one(browser, f"#front [data-point='{point}']").click()
        assert len(browser.find_elements(By.CSS_SELECTOR, "#lines .ring")) == rings


def test_the_legend_speaks_of_hollow_marks_only_where_there_are_some(browser, tmp_path):
    open_points(browser, tmp_path, COARSE)
    assert "hollow" not in text(browser, "#legend")
    open_points(browser, tmp_path, COARSE + "\nworse,soup,0.4,0.6,0.1,0.1,0.02,0.03\n")
    assert "hollow" in text(browser, "#legend")


def test_the_axes_never_show_the_same_reward(triangle):
    Select(one(triangle, "#axis-x")).select_by_value("faithful")
    names = [name.text for name in triangle.find_elements(By.CSS_SELECTOR, "#front svg > text.name")]
    assert names == ["faithful", "positive"]
    assert one(triangle, "#axis-y").get_property("value") == "positive"


def test_a_page_of_a_single_reward_works(browser, tmp_path):
    (tmp_path / "points.csv").write_text("kind,lambda,positive\nsoup,0.0,0.5\nsoup,0.5,0.8\nsoup,1.0,0.6\n")
    make_report([tmp_path / "points.csv"], tmp_path / "report", Options())
    browser.get((tmp_path / "report" / "index.html").as_uri())
    assert text(browser, "#chosen-id") == "soup-0.50-0.50"
    assert browser.get_log("browser") == []
    assert not browser.find_elements(By.CSS_SELECTOR, "#sliders input")
    assert not one(browser, "#scales").is_displayed()
    assert [name.text for name in browser.find_elements(By.CSS_SELECTOR, "#front text.name")] == ["positive"]
    experts = [
        numbers(mark.get_attribute("transform")) for mark in browser.find_elements(By.CSS_SELECTOR, "#front .expert")
    ]
    assert experts[0][0] < experts[1][0]
    assert experts[0][1] == experts[1][1]
