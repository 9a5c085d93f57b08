"""Drive a real browser: open pages, touch them, and read what they show."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.rendering import render_page

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    webdriver = ActionChains = By = Keys = Select = WebDriverWait = None

needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER and webdriver),
    reason="the page is not driven here; to add it: apt-get install chromium chromium-driver; pip install selenium",
)

HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
COARSE = "id,kind,weight:x,weight:y,score:x,score:y,stderr:x,stderr:y\n" + "\n".join(
    ["a,expert,1,0,0.9,0.1,0.02,0.03", "b,expert,0,1,0.2,0.7,0.02,0.03", "half,soup,0.5,0.5,0.7,0.5,0.02,0.03"]
)


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


def one(browser, selector: str):
    return browser.find_element(By.CSS_SELECTOR, selector)


def text(browser, selector: str) -> str:
    return one(browser, selector).text


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
