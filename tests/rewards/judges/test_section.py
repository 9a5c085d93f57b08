"""What a recipe may say of a judge."""

from __future__ import annotations

from typing import Any

import pytest

from rsoup.errors import RecipeError
from rsoup.recipe_file import parse_recipe
from rsoup.rewards import reads_rows, reward_identity

HERE = {"rubric": "Is it kind?", "model": "m", "base_url": "http://127.0.0.1:1/v1"}
SECRET = "sk-proj-secret"


def reward(**judge: Any) -> Any:
    content = {"model": {"base": "m"}, "task": {"name": "review"}, "rewards": {"kind": {"judge": judge}}}
    return parse_recipe(content, "r.yaml").rewards["kind"]


@pytest.mark.parametrize(
    ("judge", "message", "hint"),
    [
        ({"model": "m"}, "rewards.kind.judge.rubric is missing", ""),
        ({**HERE, "rubric": " "}, "no words", "what makes an answer good"),
        ({**HERE, "scale": [9, 1]}, "9 is not below 1", "lowest score first"),
        ({**HERE, "base_url": "localhost:80"}, "no address", "http://127.0.0.1"),
        ({**HERE, "base_url": f"http://me:{SECRET}@x/v1"}, "name or a password", "api_key_env"),
        ({**HERE, "api_key_env": SECRET}, "never the key itself", "export OPENAI_API_KEY"),
        ({**HERE, "api_key": SECRET}, "unknown key rewards.kind.judge.api_key", "api_key_env"),
        ({**HERE, "options": {"stream": True}}, "rsoup fills in stream", "options"),
        ({"rubric": "x", "model": "m", "max_calls": 3}, "max_calls is for a judge at an endpoint", "base_url"),
        ({"rubric": "x", "model": "m", "scale": [1, 10]}, "one digit", "[0, 9]"),
    ],
)
def test_what_means_nothing_is_refused_and_no_secret_is_repeated(
    judge: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        reward(**judge)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert SECRET not in str(caught.value)


def test_a_judge_is_the_only_source_of_a_reward() -> None:
    content = {"model": {"base": "m"}, "task": {"name": "review"}}
    for other in ({"use": "brief"}, {"model": "x/y"}, {"function": "a:b"}):
        with pytest.raises(RecipeError, match="only one of use, model, function and judge"):
            parse_recipe({**content, "rewards": {"kind": {"judge": HERE, **other}}}, "r.yaml")
    with pytest.raises(RecipeError, match="format is for a classifier"):
        parse_recipe({**content, "rewards": {"kind": {"judge": HERE, "format": "0"}}}, "r.yaml")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"rubric": "Is it short?"}, False),
        ({"model": "n"}, False),
        ({"scale": [1, 5]}, False),
        ({"pairwise": True}, False),
        ({"temperature": 1.0}, False),
        ({"options": {"seed": 1}}, False),
        ({"base_url": "http://127.0.0.1:2/v1"}, False),
        ({"base_url": "http://127.0.0.1:1/v1/"}, True),
        ({"concurrency": 1, "timeout": 5.0, "retries": 0, "max_calls": 9, "api_key_env": "MINE"}, True),
    ],
)
def test_the_identity_holds_what_decides_a_score_and_nothing_else(change: dict[str, Any], same: bool) -> None:
    assert (reward_identity("kind", reward(**HERE)) == reward_identity("kind", reward(**{**HERE, **change}))) is same


def test_only_a_comparison_reads_the_reference() -> None:
    assert not reads_rows("kind", reward(**HERE))
    assert reads_rows("kind", reward(**HERE, pairwise=True))
