"""The page in a real browser, with a real server process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from report.browser import BROWSER, DRIVER, HOSTILE, WebDriverWait, needs_browser, one, screen, text, webdriver

pytestmark = needs_browser


@pytest.fixture(scope="module")
def url(tiny_run: Path) -> Iterator[str]:
    """The address of a finished run, served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "rsoup", "serve", str(tiny_run / "run"), "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                httpx2.get(f"{address}/health")
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    own = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield own
    own.quit()


@pytest.fixture
def page(browser, url: str):
    """The page, when it knows the run."""
    browser.get(url)
    WebDriverWait(browser, 20).until(lambda own: own.execute_script("return run !== null"))
    return browser


def ask(page, prompt: str, share: float, tokens: int = 6) -> str:
    """Return the whole answer with this share of the first expert."""
    page.execute_script(
        "$('tokens').value = arguments[2]; $('prompt').value = arguments[0]; shift('positive', arguments[1]); ask()",
        *(prompt, share, tokens),
    )
    WebDriverWait(page, 20).until(lambda own: "tokens," in text(own, "#state"))
    return page.execute_script("return $('answer').textContent")


def test_the_slider_changes_the_answer_to_that_of_the_mix(page, url: str) -> None:
    template = httpx2.get(f"{url}/rsoup/run").json()["template"]
    for share, model in ((1.0, "expert:positive"), (0.0, "expert:brief"), (0.5, "soup:positive=0.5,brief=0.5")):
        body = {
            "model": model,
            "prompt": template.replace("{post}", "the kettle lid"),
            "max_tokens": 6,
            "temperature": 0,
        }
        alone = httpx2.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"]
        assert ask(page, "the kettle lid", share) == alone


def test_shown_scores_are_those_of_the_rewards(page, url: str) -> None:
    answer = ask(page, "the kettle lid", 0.5)
    WebDriverWait(page, 20).until(lambda own: text(own, "#scores"))
    body = {"prompt": "the kettle lid", "completion": answer}
    for name, score in httpx2.post(f"{url}/rsoup/score", json=body).json()["scores"].items():
        assert float(one(page, f"[data-reward='{name}']").get_attribute("data-score")) == score


def test_a_prompt_of_html_stays_text_and_nothing_leaves_the_server(page, url: str) -> None:
    ask(page, HOSTILE, 0.5)
    page.execute_script("$('answer').textContent = ''; say(arguments[0])", HOSTILE)
    assert text(page, "#state") == HOSTILE
    assert page.execute_script("return window.ran") is None
    names = page.execute_script("return performance.getEntriesByType('resource').map((own) => own.name)")
    assert names
    assert all(name.startswith(url) for name in names)


def test_a_stopped_answer_frees_its_place(page, url: str) -> None:
    page.execute_script(
        "$('tokens').value = 100; $('prompt').value = 'the'; ask(); setTimeout(() => $('stop').click(), 30)"
    )
    WebDriverWait(page, 20).until(lambda own: text(own, "#state") == "Stopped")
    deadline = time.monotonic() + 10
    while not re.search(r"^rsoup_answers_running 0", httpx2.get(f"{url}/metrics").text, re.MULTILINE):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_telephone_does_not_scroll_sideways(page) -> None:
    screen(page, 360, 740)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
