"""A browser for the tests of the page, and the pages they read most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rsoup.report import Options, make_report

from .browser import BROWSER, DRIVER, HOSTILE, webdriver
from .synthetic import write_line, write_triangle


@pytest.fixture(scope="session")
def driver(tmp_path_factory) -> Iterator[webdriver.Chrome]:
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
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield opened
    opened.quit()


@pytest.fixture
def browser(driver) -> Iterator[webdriver.Chrome]:
    """Give the browser, on its own screen again after a test that emulates another."""
    yield driver
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


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
