"""A judge at a server of this machine, with a folder of kept answers for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.judges.server import KEY, MODEL, Endpoint, serving
from rsoup.recipe import RewardSection
from rsoup.rewards.judges.usage import USED

Section = Callable[..., RewardSection]
RUBRIC = "How good is it?"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept answers, empty; the key is in the environment, and nothing has been asked."""
    monkeypatch.setenv("RSOUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    USED.clear()
    return tmp_path / "cache" / "judge"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that judges."""
    with serving() as own:
        yield own


@pytest.fixture
def section(endpoint: Endpoint) -> Section:
    """Make the section of a reward that the server judges."""

    def make(**settings: Any) -> RewardSection:
        judge = {"rubric": RUBRIC, "model": MODEL, "base_url": endpoint.url, "retries": 2, **settings}
        return RewardSection.model_validate({"judge": judge})

    return make
