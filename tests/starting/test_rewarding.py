"""Which rewards are proposed for rows, and how those are read that are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import RecipeError
from rsoup.recipe import TaskSection
from rsoup.starting.looking import Look
from rsoup.starting.rewarding import functions_in, missing, read_rewards, suggest


def seen(references: Any, words: int = 0, source: str = "x.jsonl") -> Look:
    return Look(TaskSection(data=source), source, 80, 20, "", False, references, words, "", {})


@pytest.mark.parametrize(
    ("rows", "there", "rewards"),
    [
        (seen("numbers"), True, {"math": {}, "length": {"target": 20}}),
        (seen("numbers"), False, {"exact": {}, "length": {"target": 20}}),
        (seen("letters"), True, {"choice": {}, "length": {"target": 20}}),
        (seen("words"), True, {"exact": {}, "length": {"target": 20}}),
        (seen("texts", 60), True, {"faithful": {}, "length": {"target": 30}}),
        (seen("none"), False, {"varied": {}, "length": {"target": 20}}),
        (seen("none", source="reviews"), True, {"faithful": {}, "positive": {}}),
    ],
)
def test_two_rewards_are_proposed_that_work_with_what_is_installed(
    rows: Look, there: bool, rewards: dict[str, Any]
) -> None:
    assert suggest(rows, lambda _: there) == rewards
    assert missing(rewards, lambda _: there) == {}


def test_rewards_are_names_functions_files_and_models(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import os\nLIMIT = 3\ndef kind(completions): ...\ndef _help(x): ...\ndef main(): ...\ndef short(c): ...\n"
    )
    judge = tmp_path / "judge"
    judge.mkdir()
    assert functions_in(own) == ["kind", "short"]
    assert read_rewards(f"brief, {own} nice={judge} plain={own}:kind second=brief owner/model") == {
        "brief": {},
        "kind": {"function": f"{own}:kind"},
        "short": {"function": f"{own}:short"},
        "nice": {"model": str(judge)},
        "plain": {"function": f"{own}:kind"},
        "second": {"use": "brief"},
        "model": {"model": "owner/model"},
    }


def test_a_judge_is_asked_for_by_what_it_judges() -> None:
    assert read_rewards("very-polite=judge judge") == {
        "very-polite": {"judge": {"rubric": "How very polite is the answer?"}},
        "judge": {"judge": {"rubric": "How good is the answer?"}},
    }
    assert missing(read_rewards("polite=judge judge"), lambda _: False) == {}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "needs two", "two or more"),
        ("brief", "is 1 reward", "two or more"),
        ("brief brief", "two rewards called brief", "NAME=brief"),
        ("brief psitive", "no reward 'psitive'", "Did you mean positive?"),
        ("brief absent.py", "no function in it", "file.py:function"),
        ("brief a/b=varied", "'a/b' cannot name", "letters"),
        ("brief one={own}", "has the functions kind, short", "one={own}:kind"),
    ],
)
def test_rewards_that_cannot_be_read_are_refused(text: str, message: str, hint: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def kind(completions): ...\ndef short(completions): ...\n")
    with pytest.raises(RecipeError) as refused:
        read_rewards(text.replace("{own}", str(own)))
    assert message in refused.value.message
    assert hint.replace("{own}", str(own)) in refused.value.hint


def test_a_package_that_a_reward_needs_is_named_with_what_installs_it() -> None:
    found = missing({"positive": {}, "brief": {}, "sum": {"use": "math"}, "math": {"model": "a/b"}}, lambda _: False)
    assert found.keys() == {"positive", "sum"}
    assert found["sum"].endswith('[verifiable]"')
