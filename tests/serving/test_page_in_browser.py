"""The page in a real browser, with a real server."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
import yaml

from report.browser import (
    BROWSER,
    DRIVER,
    HOSTILE,
    Keys,
    Select,
    WebDriverWait,
    needs_browser,
    one,
    screen,
    text,
    webdriver,
)
from rsoup.serving.source import Source
from serving.conftest import NAMES, Client

pytestmark = needs_browser

POST = "the kettle lid"
REWARDS = """
def words(prompts, completions):
    return [float(len(prompt.split())) for prompt in prompts]

def silent(completions):
    return [None for _ in completions]

def needy(completions, solution):
    return [1.0] * len(completions)

def broken(completions):
    raise ValueError("no dictionary")
"""


@contextmanager
def serving(source: Source) -> Iterator[str]:
    """Yield the address of a server in this process."""
    client = Client(source)
    server = uvicorn.Server(uvicorn.Config(client.http.app, port=0, lifespan="off", ws="none", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        client.stop()


OWN = ("words", "silent", "needy", "broken")


@pytest.fixture(scope="module")
def url(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a finished run that minimises ``brief`` and has rewards that are not measured."""
    folder = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(tiny_run / "run", folder)
    (folder / "own.py").write_text(REWARDS)
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["rewards"]["brief"]["direction"] = "minimize"
    content["rewards"] |= {name: {"function": f"{folder}/own.py:{name}"} for name in OWN}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**content, "output": str(folder)}, sort_keys=False))
    results = json.loads((folder / "eval" / "results.json").read_text())
    results["directions"] = {"positive": "maximize", "brief": "minimize"}
    (folder / "eval" / "results.json").write_text(json.dumps(results))
    with serving(Source(str(folder))) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    own = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    screen(own, 1200, 1400)
    yield own
    own.quit()


def opened(browser, url: str):
    browser.get(url)
    WebDriverWait(browser, 20).until(lambda own: own.execute_script("return run !== null"))
    browser.execute_script("$('sampling').open = true; $('tokens').value = 6")
    return browser


@pytest.fixture
def page(browser, url: str):
    """The page, when it knows the run."""
    return opened(browser, url)


def side(letter: str, rest: str) -> str:
    return f".side[data-side='{letter}'] {rest}"


def answer_of(page, model: str, letter: str = "A") -> str:
    """Return the answer, when it is the whole one of a model."""
    WebDriverWait(page, 20).until(lambda own: re.search(rf"tokens.*, {model}$", text(own, side(letter, ".state"))))
    return page.execute_script("return document.querySelector(arguments[0]).textContent", side(letter, ".answer"))


def alone(url: str, model: str) -> str:
    """Return the answer of a model to the post in the task's words."""
    prompt = httpx2.get(f"{url}/rsoup/run").json()["template"].replace("{post}", POST)
    body = {"model": model, "prompt": prompt, "max_tokens": 6, "temperature": 0}
    return httpx2.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"]


def press(page, selector: str, *keys: str) -> None:
    one(page, selector).send_keys(*keys)


def test_keys_on_the_slider_change_the_answer_to_that_of_the_mix(page, url: str) -> None:
    press(page, "#prompt", POST, Keys.CONTROL, Keys.ENTER)
    middle = "soup:positive=0.5,brief=0.5"
    assert answer_of(page, middle) == alone(url, middle)
    slider = side("A", "[data-name='lambda']")
    for keys, model in (
        ((Keys.HOME,), "expert:positive"),
        ((Keys.END,), "expert:brief"),
        ((Keys.ARROW_LEFT,), "soup:positive=0.01,brief=0.99"),
    ):
        press(page, slider, *keys)
        assert answer_of(page, model) == alone(url, model)
    assert text(page, side("A", ".mix")) == "positive 0.01 · brief 0.99"
    one(page, side("A", "details")).click()
    press(page, side("A", "[data-name='base']"), Keys.HOME, *[Keys.ARROW_RIGHT] * 2)
    assert answer_of(page, "soup:positive=0.01,brief=0.97,base=0.02")


def test_a_point_is_asked_by_click_and_by_key_and_keeps_the_focus(page, url: str) -> None:
    press(page, "#prompt", POST)
    one(page, "#plot [data-point='brief']").click()
    assert answer_of(page, "expert:brief") == alone(url, "expert:brief")
    assert one(page, "#plot .ring.A").get_attribute("data-nearest") == "brief"
    press(page, "#plot [data-point='morl-0.50-0.50']", Keys.ENTER)
    assert answer_of(page, "expert:morl-0.50-0.50") == alone(url, "expert:morl-0.50-0.50")
    assert page.execute_script("return document.activeElement.dataset.point") == "morl-0.50-0.50"
    assert "morl-0.50-0.50" in text(page, ".tip")
    one(page, side("A", ".stops [data-point='soup-0.50-0.50']")).click()
    assert one(page, side("A", "[data-name='lambda']")).get_attribute("value") == "0.5"


def test_two_trade_offs_are_asked_at_once_and_scored_apart(page, url: str) -> None:
    one(page, "#compare").click()
    press(page, side("A", "[data-name='lambda']"), Keys.END)
    press(page, side("B", "[data-name='lambda']"), Keys.HOME)
    press(page, "#prompt", POST)
    one(page, "button[type='submit']").click()
    for letter, name in (("A", "brief"), ("B", "positive")):
        answer = answer_of(page, f"expert:{name}", letter)
        assert answer == alone(url, f"expert:{name}")
        WebDriverWait(page, 20).until(lambda own, at=letter: text(own, side(at, ".scores")))
        body = {"prompt": POST, "completion": answer}
        told = httpx2.post(f"{url}/rsoup/score", json=body).json()["scores"]
        for reward in ("positive", "brief"):
            shown = one(page, side(letter, f"[data-reward='{reward}']")).get_attribute("data-score")
            assert float(shown) == told[reward]
    one(page, "#plot [data-point='soup-0.50-0.50']").click()
    assert answer_of(page, "soup:positive=0.5,brief=0.5", "B")
    assert text(page, side("A", ".mix")) == "brief 1.00"


def test_rewards_read_the_post_and_fail_one_by_one(page) -> None:
    press(page, "#prompt", POST, Keys.CONTROL, Keys.ENTER)
    WebDriverWait(page, 20).until(lambda own: "failed" in text(own, side("A", ".scores")))
    assert text(page, side("A", "[data-reward='words'] i")) == "3"  # not those of the template
    assert text(page, side("A", "[data-reward='silent'] i")) == "does not apply"
    assert "no dictionary" in text(page, side("A", "[data-reward='broken']"))
    needy = one(page, side("A", "[data-reward='needy'] i"))
    assert (needy.text, needy.get_attribute("class")) == ("needs the column solution", "quiet")
    assert text(page, side("A", ".state")).startswith("6 tokens (cut at the limit)")


def test_a_minimised_reward_says_so_and_keeps_its_sign(page, url: str) -> None:
    assert [node.text for node in page.find_elements("css selector", "#plot .name")] == [
        "positive (higher is better)",
        "brief (lower is better)",
    ]
    run = httpx2.get(f"{url}/rsoup/run").json()
    assert run["directions"]["brief"] == "minimize"
    means = {point["id"]: point["scores"]["brief"]["mean"] for point in run["points"]}
    assert max(means.values()) < 0  # minus the count of words
    best = min(means, key=means.__getitem__)
    assert page.execute_script("return shareOf('brief', arguments[0])", means[best]) == 1
    up = {
        own.get_attribute("data-point"): float(own.get_attribute("transform").split()[1].rstrip(")"))
        for own in page.find_elements("css selector", "#plot [data-point]")
    }
    assert up[best] == max(up.values())


def test_any_two_of_three_rewards_are_plotted(page) -> None:
    page.execute_script("for (const own of run.points) own.scores.words = { mean: 3 + own.scores.brief.mean }; start()")
    Select(one(page, "#y")).select_by_value("words")
    assert one(page, "#plot svg").get_attribute("aria-label").startswith("words (higher is better) over positive")


@pytest.fixture(scope="module")
def hostile_url(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, expert_folders: dict[str, Path]):
    """The address of three adapters without a run, on a model whose words are HTML."""
    folder = tmp_path_factory.mktemp("models") / "hostile"
    shutil.copytree(tiny_model, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word if word[0] == "<" else HOSTILE + word: place for word, place in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    adapters = [f"{name}={path}" for name, path in expert_folders.items()]
    with serving(Source(model=str(folder), adapters=adapters, allow_different_starts=True)) as address:
        yield address


def test_html_stays_text_and_nothing_leaves_the_server(browser, hostile_url: str) -> None:
    page = opened(browser, hostile_url)
    press(page, "#prompt", HOSTILE, Keys.CONTROL, Keys.ENTER)
    assert HOSTILE in answer_of(page, "soup:positive=0.34,brief=0.33,calm=0.33")
    assert page.execute_script("return window.ran") is None
    assert not page.find_elements("css selector", "main img, main script")
    names = page.execute_script("return performance.getEntriesByType('resource').map((own) => own.name)")
    assert names
    assert all(name.startswith(hostile_url) for name in names)


def test_sliders_of_three_experts_sum_to_one(browser, hostile_url: str) -> None:
    page = opened(browser, hostile_url)
    press(page, side("A", "[data-name='calm']"), Keys.HOME, *[Keys.ARROW_RIGHT] * 3)
    assert text(page, side("A", ".mix")) == "positive 0.49 · brief 0.48 · calm 0.03"
    press(page, side("A", f"[data-name='{NAMES[0]}']"), Keys.END)
    assert text(page, side("A", ".mix")) == "positive 1.00"


def test_a_stopped_answer_frees_its_place(page, url: str) -> None:
    def count(name: str) -> float:
        return float(re.search(rf"^rsoup_{name} (\S+)", httpx2.get(f"{url}/metrics").text, re.MULTILINE)[1])

    page.execute_script("$('tokens').value = 100")
    one(page, "#compare").click()
    press(page, "#prompt", POST)
    page.execute_script("ask(); setTimeout(() => $('stop').click(), 30)")
    for letter in "AB":
        WebDriverWait(page, 20).until(lambda own, at=letter: text(own, side(at, ".state")) == "Stopped")
    deadline = time.monotonic() + 10
    while count("answers_running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_telephone_does_not_scroll_sideways(page) -> None:
    one(page, "#compare").click()
    press(page, "#prompt", POST, Keys.CONTROL, Keys.ENTER)
    WebDriverWait(page, 20).until(lambda own: "failed" in text(own, side("B", ".scores")))
    screen(page, 360, 740)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    screen(page, 1200, 1400)
