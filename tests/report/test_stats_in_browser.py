"""The page's statistics against scipy and against Python's own."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from scipy import stats

from rsoup.pareto.looking import preferred

from .browser import needs_browser

pytestmark = needs_browser
SCRIPT = (files("rsoup.report") / "page" / "stats.js").read_text()


@pytest.fixture
def call(browser):
    browser.get("about:blank")
    return lambda expression, *values: browser.execute_script(f"{SCRIPT}\nreturn {expression}", *values)


def test_students_quantiles(call):
    cases = [[0.975, 1], [0.9979, 1], [0.975, 2], [0.9875, 3], [0.975, 7], [0.9979, 30], [0.975, 199], [0.975, 5000]]
    found = call("arguments[0].map(([p, df]) => student(p, df))", cases)
    np.testing.assert_allclose(found, [stats.t.ppf(p, df) for p, df in cases], rtol=2e-5)


def test_the_interval_of_a_mean_difference(call):
    values = np.random.default_rng(0).normal(0.1, 1, 23)
    for together, level in ((1, 0.95), (5, 0.99)):
        found = call("meanOf(arguments[0], arguments[1])", values.tolist(), together)
        own = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert found["value"] == pytest.approx(values.mean())
        assert found["interval"] == pytest.approx([own.low, own.high], rel=1e-5)
    assert call("meanOf([2])") == {"value": 2, "interval": None}


@pytest.mark.parametrize(("wins", "losses"), [(0, 5), (3, 1), (40, 60), (7, 0)])
def test_the_interval_of_a_share_of_wins(call, wins, losses):
    own = stats.binomtest(wins, wins + losses).proportion_ci(method="wilson")
    assert call(f"winShare({wins}, {losses}).interval") == pytest.approx([own.low, own.high], abs=1e-9)


@pytest.mark.parametrize("rewards", [2, 3, 4])
def test_the_preference_is_that_of_python(call, rewards):
    generator = np.random.default_rng(rewards)
    shares = generator.random((7, rewards))
    pairs = [generator.choice(7, 2, replace=False).tolist() for _ in range(12)]
    liked = generator.choice([0.0, 0.5, 1.0], 12).tolist()
    found = call(
        "(({ mus, joint, ...rest }) => rest)(preferred(...arguments))",
        shares.tolist(),
        [[*pair, own] for pair, own in zip(pairs, liked, strict=True)],
    )
    own = preferred(shares, [tuple(pair) for pair in pairs], liked)
    np.testing.assert_allclose(found["mu"], own.mu, atol=1e-9)
    np.testing.assert_allclose(np.transpose(found["interval"]), own.interval, atol=1e-9)
    assert (found["best"], found["known"]) == (own.best, own.known)
    assert (found["agreeing"], found["decided"], found["choices"]) == (own.agreeing, own.decided, own.choices)
    assert found["sure"] == pytest.approx(own.sure, abs=1e-9)
