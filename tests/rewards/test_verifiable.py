"""Answers that can be checked: right ones count, wrong ones do not, and rows without reference are none of theirs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.errors import RecipeError, RewardError
from rsoup.recipe import ResponseRule, RewardSection
from rsoup.recipe_file import parse_reward_section
from rsoup.rewards import reward_identity
from rsoup.rewards.samples import Sample, sample_of
from rsoup.rewards.scoring import make_scorer, score
from rsoup.tasks.loading import Example


def scored(name: str, reference: str | None, *completions: str, **settings: Any) -> list[float]:
    scorer = make_scorer(name, RewardSection.model_validate({"use": name, **settings}))
    return score(name, scorer, [Sample("?", text, reference=reference) for text in completions]).tolist()


@pytest.mark.parametrize("name", ["math", "exact", "choice", "contains"])
def test_a_row_without_reference_is_none_that_it_applies_to(name: str) -> None:
    assert np.isnan(scored(name, None, "B", "4")).all()


@pytest.mark.parametrize("name", ["math", "exact", "contains"])
def test_what_is_thought_is_no_answer(name: str) -> None:
    thoughts = ("<think>5?</think> 4", "4? no: 5</think>\n4", "<think>4</think> 5", "<think>it is 4")
    assert scored(name, "4", *thoughts) == [1, 1, 0, 0]


@pytest.mark.parametrize("response", ["whole", "after_think"])
def test_a_thought_that_the_prompt_opens_is_no_answer_until_it_ends(response: ResponseRule) -> None:
    example = Example("1", "2+2?", "user: 2+2? assistant: <think>\n", (1,), response=response, reference="4")
    texts = ("4", "it is 4", "5? no </think> 4") if response == "whole" else ("", "", "4")
    samples = [sample_of(example, text) for text in texts]
    assert [score(name, make_scorer(name, RewardSection()), samples).tolist() for name in ("math", "exact")] == [
        [0, 0, 1],
        [0, 0, 1],
    ]
    plain = sample_of(replace(example, prompt="user: 2+2? assistant: "), "4")
    assert score("exact", make_scorer("exact", RewardSection()), [plain]).tolist() == [1]
    assert plain.key() != replace(plain, thinking=True).key()


def test_math_compares_values_and_not_texts() -> None:
    right = (r"\boxed{\frac{1}{2}}", "The answer is 0.5", "$1/2$", r"$\frac{2}{4}$")
    assert scored("math", r"$\frac{1}{2}$", *right, "no idea", "", "The answer is 0.6") == [1, 1, 1, 1, 0, 0, 0]
    assert scored("math", "She has 3 + 4 = 7 apples.\n#### 1,007", "The answer is 1007") == [1]
    assert math.isnan(scored("math", "no number at all", "4")[0])


def test_exact_forgives_case_spaces_quotes_and_a_stop() -> None:
    right = ("Paris", " paris. ", '"PARIS"', "**Paris**", "Paris!\n")
    assert scored("exact", "Paris", *right, "In Paris", "Pari", "") == [1, 1, 1, 1, 1, 0, 0, 0]
    assert scored("exact", "New  York.", "new\nyork") == [1]
    assert scored("exact", "?", "?", "", "!") == [1, 0, 0]  # whose stop is all there is


def test_choice_finds_the_letter_that_is_chosen() -> None:
    right = (
        "B", "(B)", "b)", "B. Paris", "**B**", "The answer is B.", "Answer: (B) Paris", r"\boxed{B}",
        r"\boxed{\text{B}}", "A is tempting, but the answer is B", "I would say A.\nFinal answer: B",
        "So (A) or (B)? (B)",
    )  # fmt: skip
    assert scored("choice", "B", *right) == [1] * len(right)
    assert scored("choice", "(b) Paris", "B") == [1]
    wrong = ("A", "A boy sits here.", "", "The answer is a boy.", "Both", "answer: C, not B")
    assert scored("choice", "B", *wrong) == [0] * len(wrong)
    assert scored("choice", "A", "The answer is a kettle.") == [0]
    with pytest.raises(RewardError, match="the reference '42' begins with no letter of a choice"):
        scored("choice", "42", "B")


def test_contains_looks_for_whole_words_or_for_a_pattern() -> None:
    assert scored("contains", "4", "It is 4.", "14", "4", "four") == [1, 0, 1, 0]
    assert scored("contains", "New York", "in new  york,") == [1]
    assert scored("contains", "a+b", "so A+B holds", "aab") == [1, 0]
    assert scored("contains", None, "order 66", "order", pattern=r"\d+") == [1, 0]


SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def test_json_has_to_parse_and_to_fulfil_its_schema(tmp_path: Path) -> None:
    texts = ('{"name": "x"}', '```json\n{"name": "x"}\n```', '{"name": 1}', "[1]", "{", "", "NaN", "Sure: {}")
    assert scored("json", None, *texts) == [1, 1, 1, 1, 0, 0, 0, 0]
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    for schema in (SCHEMA, str(tmp_path / "schema.json")):
        assert scored("json", None, *texts, schema=schema) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert scored("json", None, "[" * 100_000) == [0]
    endless = {"type": "array", "items": {"$ref": "#"}}
    assert scored("json", None, "[" * 900 + "]" * 900, "[[]]", schema=endless) == [0, 1]
    with pytest.raises(RewardError, match="its schema is none, at type"):
        scored("json", None, "1", schema={"type": "nothing"})
    with pytest.raises(RewardError, match="cannot be read"):
        scored("json", None, "1", schema="absent.json")
    with pytest.raises(RecipeError, match=r"rewards\.brief: schema is not read"):
        make_scorer("brief", parse_reward_section({"use": "brief", "schema": SCHEMA}, "x"))


def test_a_schema_asks_no_server() -> None:
    with pytest.raises(RewardError, match="raised"):
        scored("json", None, "{}", schema={"$ref": "http://localhost:1/schema.json"})


def test_the_identity_of_json_is_that_of_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    section = RewardSection.model_validate({"schema": str(path)})
    before = reward_identity("json", section)
    assert before == reward_identity("json", RewardSection.model_validate({"schema": SCHEMA}))
    path.write_text("{}")
    assert reward_identity("json", section) != before
    assert RewardSection.model_validate(section.model_dump()) == section
