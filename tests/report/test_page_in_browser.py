"""The page in a real browser: it answers, shows text as text, and keeps to itself."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsoup.pareto.choice import simplex_lattice
from rsoup.report import Options, make_report
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.rendering import render_page

from .synthetic import write_line, write_triangle

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    webdriver = None

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER and webdriver),
    reason="the page is not driven here; to add it: apt-get install chromium chromium-driver; pip install selenium",
)

HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,1000",
    ):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path_factory.getbasetemp())})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def line_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    path = write_line(folder, prompts=200, hostile=HOSTILE)
    make_report([path], folder / "report", Options(draws=100))
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def triangle_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("triangle")
    make_report([write_triangle(folder, prompts=12)], folder / "report", Options(draws=100))
    return folder / "report" / "index.html"


@pytest.fixture
def line(browser, line_page):
    browser.set_window_size(1280, 1000)
    browser.get(line_page.as_uri())
    return browser


@pytest.fixture
def triangle(browser, triangle_page):
    browser.set_window_size(1280, 1000)
    browser.get(triangle_page.as_uri())
    return browser


def open_points(browser, folder: Path, csv: str, *, size: tuple[int, int] | None = None, **options) -> None:
    """Open the page of a table of points, on an emulated screen if a size is given."""
    (folder / "points.csv").write_text(csv)
    report = analyse(read_inputs([folder / "points.csv"], {}, {}), Options(**options))
    (folder / "index.html").write_text(render_page(report, None), encoding="utf-8")
    if size:
        screen(browser, *size)
    browser.get((folder / "index.html").as_uri())


def screen(browser, width: int, height: int) -> None:
    # headless windows have a least width; an emulated screen does not
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


@pytest.fixture(autouse=True)
def as_it_was(browser):
    """Give the browser back its own screen after a test that emulates another."""
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def one(browser, selector: str):
    return browser.find_element(By.CSS_SELECTOR, selector)


def text(browser, selector: str) -> str:
    return one(browser, selector).text


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


def middle(browser, selector: str) -> tuple[float, float]:
    """Return the middle of an element in the window, after scrolling it there."""
    script = """
        const node = document.querySelector(arguments[0]);
        node.scrollIntoView({ block: "center", behavior: "instant" });
        const box = node.getBoundingClientRect();
        return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    """
    return tuple(browser.execute_script(script, selector))


def touch(browser, *places: tuple[float, float]) -> None:
    """Put a finger down at the first place, move it through the others, and lift it."""
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, place in zip(["touchStart", *["touchMove"] * len(places)], places, strict=False):
        at = [{"x": place[0], "y": place[1]}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    time.sleep(0.15 if len(places) > 1 else 0)  # a finger lifted in motion would throw the page
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def path(place: tuple[float, float], dx: float, dy: float) -> list[tuple[float, float]]:
    return [(place[0] + dx * k / 10, place[1] + dy * k / 10) for k in range(11)]


def numbers(transform: str) -> list[float]:
    return [float(part) for part in transform.removeprefix("translate(").removesuffix(")").split()]


def place_of(browser, point: str) -> str:
    return one(browser, f"#front [data-point='{point}']").get_attribute("transform")


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


COARSE = "id,kind,weight:x,weight:y,score:x,score:y,stderr:x,stderr:y\n" + "\n".join(
    ["a,expert,1,0,0.9,0.1,0.02,0.03", "b,expert,0,1,0.2,0.7,0.02,0.03", "half,soup,0.5,0.5,0.7,0.5,0.02,0.03"]
)


def test_a_choice_asked_for_gives_its_own_command(browser, tmp_path):
    open_points(browser, tmp_path, COARSE, prefer=({"x": 0.37, "y": 0.63},))
    assert text(browser, "#asked button b") == "lambda = mu: x 0.37, y 0.63"
    one(browser, "#asked button").click()
    assert "-w 0.37 -w 0.63" in text(browser, "#command")
    assert "nearest measured soup half" in text(browser, "#chosen")
    one(browser, "#front [data-point=half]").click()
    assert "-w 0.5 -w 0.5" in text(browser, "#command")


def test_a_standard_error_without_an_interval_is_shown(browser, tmp_path):
    open_points(browser, tmp_path, COARSE)
    ActionChains(browser).move_to_element(one(browser, "#front [data-point=half]")).perform()
    assert "x 0.700 ± 0.020" in text(browser, "#tip")
    assert "± 0.030" in text(browser, "#chosen .gauge:last-child")
    assert "0.500 ± 0.030" in text(browser, "[data-row=half]")


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


def test_the_axes_never_show_the_same_reward(triangle):
    Select(one(triangle, "#axis-x")).select_by_value("faithful")
    names = [name.text for name in triangle.find_elements(By.CSS_SELECTOR, "#front svg > text.name")]
    assert names == ["faithful", "positive"]
    assert one(triangle, "#axis-y").get_property("value") == "positive"


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
