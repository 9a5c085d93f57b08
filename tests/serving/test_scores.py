"""What rewards make of an answer that is given live, with no row of a data set behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsoup.recipe_file import load_recipe
from rsoup.serving.errors import RequestError
from rsoup.serving.scores import Scored, Scores

REWARDS = """
def length(completions, **kwargs): return [float(len(text)) for text in completions]
def never(completions, **kwargs): return [None] * len(completions)
def checked(completions, solution): return [1.0] * len(completions)
def broken(completions): return [1 / 0 for text in completions]
"""


def scores(folder: Path, *names: str) -> Scores:
    (folder / "mine.py").write_text(REWARDS)
    rewards = ", ".join(f"{name}: {{function: '{folder / 'mine.py'}:{name}'}}" for name in names)
    (folder / "r.yaml").write_text(f"name: r\nmodel: {{base: x}}\ntask: {{name: reviews}}\nrewards: {{{rewards}}}\n")
    return Scores(load_recipe(folder / "r.yaml"))


def test_a_reward_that_needs_a_column_is_told_with_it_and_takes_no_score_from_others(tmp_path: Path) -> None:
    found = scores(tmp_path, "length", "never", "checked", "broken").of("a question", " four ")
    assert (found.scores, found.lacking) == ({"length": 4.0, "never": None}, {"checked": "solution"})
    assert list(found.failed) == ["broken"]
    assert scores(tmp_path, "checked").of("a question", "four") == Scored({}, {}, {"checked": "solution"})


def test_if_no_reward_can_be_had_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="raised ZeroDivisionError") as refusal:
        scores(tmp_path, "broken").of("a question", "four")
    assert "no columns of the data" in refusal.value.hint
