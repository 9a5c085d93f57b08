"""Choosing by looking, in a real browser."""

from __future__ import annotations

import json
import time

import pytest

from rsoup.pareto.looking import LEAST
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs

from .browser import ActionChains, By, needs_browser, one, text

pytestmark = needs_browser


@pytest.fixture
def fresh(line):
    line.execute_script("localStorage.clear()")
    line.refresh()
    one(line, "#looking").click()
    return line


def press(browser, keys: str) -> None:
    ActionChains(browser).send_keys(keys).perform()


def stored(browser) -> list[dict]:
    return json.loads(browser.execute_script("return Object.values(localStorage)[0] ?? '[]'"))


def test_answers_are_blind_until_asked_for(fresh):
    ids = [point["id"] for point in json.loads(fresh.execute_script("return data.textContent"))["report"]["points"]]
    for _ in range(3):
        shown = fresh.execute_script("return pair.textContent + pair.outerHTML")
        assert not [name for name in ids if f'"{name}"' in shown or f" {name} " in shown]
        press(fresh, "1")
    assert not one(fresh, "#look-reveal ol").is_displayed()
    one(fresh, "#look-reveal summary").click()
    assert len(fresh.find_elements(By.CSS_SELECTOR, "#look-reveal li")) == 3


def test_keys_choose_tie_skip_and_undo(fresh):
    press(fresh, "120s")
    assert [own["chosen"] for own in stored(fresh)] == ["left", "right", "tie", "skip"]
    assert text(fresh, "#look-note") == "3 choices, 1 skipped."
    before = text(fresh, "#look-prompt")
    press(fresh, "u")
    assert len(stored(fresh)) == 3
    press(fresh, "s")
    assert text(fresh, "#look-prompt") == before  # the same choices lead to the same pair
    assert "not known yet" in text(fresh, "#look-verdict")


def test_keys_mean_nothing_outside(fresh):
    one(fresh, "#search").send_keys("1")
    assert stored(fresh) == []


def test_order_and_pairs_vary_and_come_again(fresh):
    for _ in range(12):
        press(fresh, "0")
    told = stored(fresh)
    pairs = {frozenset((own["left"], own["right"])) for own in told}
    assert len(pairs) > 3
    assert len({own["prompt"] for own in told}) == 12
    fresh.execute_script("localStorage.clear()")
    fresh.refresh()
    one(fresh, "#looking").click()
    for _ in range(12):
        press(fresh, "0")
    assert stored(fresh) == told


def test_a_person_who_wants_the_faithful_gets_it_and_python_agrees(fresh, line_page, tmp_path_factory):
    weights = {
        point["id"]: point["weights"].get("faithful", 0)
        for point in json.loads(fresh.execute_script("return data.textContent"))["report"]["points"]
    }
    peek = """
        const { texts } = JSON.parse(data.textContent), own = document.querySelectorAll("#pair .text");
        const row = texts.prompts.indexOf(document.querySelector("#look-prompt").textContent);
        const of = (words) => Object.keys(texts.points).filter((id) => texts.points[id].completions[row] === words);
        return [...own].map((node) => of(node.textContent));
    """
    for _ in range(16):
        left, right = ([weights[name] for name in names] for names in fresh.execute_script(peek))
        press(fresh, "1" if sum(left) / len(left) > sum(right) / len(right) else "2")
    assert len(stored(fresh)) == 16
    file = tmp_path_factory.getbasetemp() / "choices.json"
    file.unlink(missing_ok=True)
    one(fresh, "#clicks-out").click()
    deadline = time.monotonic() + 5
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    measured = read_inputs([line_page.parent.parent / "eval/results.json"], {}, {})
    (choice,) = analyse(measured, Options.from_flags(choices=file, bootstrap=100)).choices
    low, high = choice.intervals["faithful"]
    shown = [own.text for own in fresh.find_elements(By.CSS_SELECTOR, "#look-found .gauge i")]
    assert shown[1] == f"{choice.asked['faithful']:.2f} [{low:.2f}, {high:.2f}]"
    assert choice.asked["faithful"] > 0.5
    one(fresh, "#clicks-clear").click()
    assert "Nothing is known" in text(fresh, "#look-found")
    one(fresh, "#clicks-file").send_keys(str(file))
    deadline = time.monotonic() + 5
    while not stored(fresh) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(stored(fresh)) == 16
    fresh.refresh()
    assert text(fresh, "#look-note").startswith("16 choices")
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 7'))
    one(fresh, "#clicks-file").send_keys(str(file))
    time.sleep(0.2)
    assert "another evaluation" in text(fresh, "#look-note")
    assert len(stored(fresh)) == 16
    file.unlink()


def test_the_steps_say_what_to_do_and_where_what_comes_out_will_stand(fresh):
    steps = [own.text for own in fresh.find_elements(By.CSS_SELECTOR, "#looking .steps li")]
    assert [step.partition(".")[0].partition(" until")[0] for step in steps[:3]] == ["Compare", "Go on", "Take the mix"]
    assert f"at least {LEAST} choices" in steps[1]
    assert "rsoup pareto RUN --choices choices.json" in steps[3]
    press(fresh, "12")
    assert f"at least {LEAST} choices are needed" in text(fresh, "#look-verdict")
    assert "How much each reward counts for you, so far" in text(fresh, "#look-found h3")
