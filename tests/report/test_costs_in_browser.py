"""The card of fronts against their cost, in a real browser."""

from __future__ import annotations

from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.rendering import render_page

from .browser import By, needs_browser, one, text
from .test_costs import measured

pytestmark = needs_browser


def opened(browser, tmp_path, own):
    page = tmp_path / "index.html"
    page.write_text(render_page(analyse(own, Options(draws=100)), None), encoding="utf-8")
    browser.get(page.as_uri())
    return browser


def test_fronts_are_shown_at_their_cost(browser, tmp_path):
    page = opened(browser, tmp_path, measured(noise=0.1))
    rows = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#cost-table tbody tr")]
    assert [row.partition(" ")[0] for row in rows] == ["soups", *["MORL,"] * 3, "MORL", "early", "mod"]
    assert "40 4000 4.0" in rows[4]
    assert len(page.find_elements(By.CSS_SELECTOR, "#cost-charts svg")) == 3
    first = one(page, "#cost-charts svg")
    assert len(first.find_elements(By.CSS_SELECTOR, ".mark")) == 7
    assert len(first.find_elements(By.CSS_SELECTOR, ".error")) == 7
    assert "soups / MORL with the experts" in text(page, "#claims")
    assert "MORL runs alone" in text(page, "#claims")
    problems = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert not problems


def test_the_card_is_hidden_where_no_cost_is_known(line):
    assert not one(line, "#costs").is_displayed()
