"""Two points against each other on the page."""

from __future__ import annotations

import json

import numpy as np

from .browser import By, Select, needs_browser, one, text

pytestmark = needs_browser


def scores(browser, point: str, reward: str) -> np.ndarray:
    script = "return JSON.parse(data.textContent).texts.points[arguments[0]].scores[arguments[1]]"
    return np.array(browser.execute_script(script, point, reward))


def against(browser, one_point: str, other: str) -> None:
    Select(one(browser, "#one")).select_by_value(one_point)
    Select(one(browser, "#other")).select_by_value(other)


def cells(browser, selector: str) -> list[str]:
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, f"{selector} td")]


def test_wins_ties_and_losses_are_counted(line):
    against(line, "soup-0.60-0.40", "morl-0.50-0.50")
    gains = scores(line, "soup-0.60-0.40", "faithful") - scores(line, "morl-0.50-0.50", "faithful")
    mean, wins, ties, losses, share = cells(line, "#duel tr[data-duel=faithful]")
    assert [int(wins), int(ties), int(losses)] == [sum(gains > 0), sum(gains == 0), sum(gains < 0)]
    assert mean.startswith(f"{gains.mean():+.3f}".replace("-", "−"))
    assert share.startswith(f"{int(100 * sum(gains > 0) / sum(gains != 0) + 0.5)} %")
    one(line, "#swap").click()
    assert cells(line, "#duel tr[data-duel=faithful]")[1:4] == [losses, ties, wins]


def test_the_first_of_the_pair_follows_the_chosen_point(line):
    assert text(line, "#versus-note").startswith("A is positive, B is base")
    one(line, "#front [data-point='soup-0.40-0.60']").click()
    assert text(line, "#versus-note").startswith("A is soup-0.40-0.60, B is base")
    assert one(line, "#lost div").get_attribute("aria-selected") == "true"  # the worst of this pair


def test_the_worst_prompts_come_first_with_both_answers(line):
    against(line, "soup-0.60-0.40", "positive")
    Select(one(line, "#lost-by")).select_by_value("positive")
    gains = scores(line, "soup-0.60-0.40", "positive") - scores(line, "positive", "positive")
    listed = [int(own.get_attribute("data-lost")) for own in line.find_elements(By.CSS_SELECTOR, "#lost div")]
    assert listed[:20] == np.argsort(gains, kind="stable")[:20].tolist()
    own = json.loads(line.execute_script("return data.textContent"))["texts"]
    for letter, point in (("A", "soup-0.60-0.40"), ("B", "positive")):
        assert (
            own["points"][point]["completions"][listed[0]].split()[:3]
            == text(line, f"[data-side={letter}] .text").split()[:3]
        )


def test_parts_of_the_prompts_are_compared_and_listed(line):
    against(line, "faithful", "positive")
    Select(one(line, "#parts")).select_by_value(":product")
    names = [own.text for own in line.find_elements(By.CSS_SELECTOR, "#slices th button")]
    assert "lamp" in names
    button = line.find_elements(By.CSS_SELECTOR, "#slices th button")[names.index("lamp")]
    gains = (scores(line, "faithful", "faithful") - scores(line, "positive", "faithful"))[1::4]
    found = [own.text for own in line.find_elements(By.CSS_SELECTOR, "#slices tbody tr")][names.index("lamp")]
    assert f" {sum(gains > 0)}/{sum(gains == 0)}/{sum(gains < 0)}" in found
    assert f"{gains.mean():+.3f}" in found
    button.click()
    rows = {int(own.get_attribute("data-lost")) for own in line.find_elements(By.CSS_SELECTOR, "#lost div")}
    assert rows == set(range(1, 200, 4))
    Select(one(line, "#parts")).select_by_value("length")
    counts = [int(row[0]) for row in (cells(line, f"#slices tr:nth-child({k})") for k in (1, 2, 3)) if row]
    assert sum(counts) == 200
