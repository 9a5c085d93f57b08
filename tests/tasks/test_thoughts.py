"""Answers after thoughts: what rewards read, and how many thoughts have no end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsoup.tasks.loading import Example
from rsoup.tasks.responses import apply_rule, read_responses, unfinished_thoughts

from .making import tokenizer_with


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<think>hm</think>\n\n4.", "4."),
        ("hm</think>4", "4"),
        ("4", "4"),
        ("", ""),
        ("<think>hm", ""),
        ("<think>a</think>4<think>b", ""),
        ("<think>a</think>3<think>b</think>4", "4"),
        ("<think></think>4", "4"),
        ("<think>hm</think>", ""),
    ],
)
def test_what_comes_after_the_thought_is_the_answer(text: str, read: str) -> None:
    """A thought without an end is no answer; a text without a thought is one as a whole."""
    assert apply_rule(text, "after_think") == read


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    ("ending", "completion", "read", "unfinished"),
    [
        ("", "<think>hm</think>4</s>", "4", False),
        ("", "<think>hm", "", True),
        ("", "4</s>", "4", False),
        ("<think>\n", "hm</think>4", "4", False),
        ("<think>\n", "hm", "", True),
        ("<think>\n\n</think>\n\n", "4", "4", False),
    ],
)
def test_a_thought_may_begin_in_the_prompt_and_its_marks_be_special_tokens(
    special: bool, ending: str, completion: str, read: str, unfinished: bool
) -> None:
    tokenizer = tokenizer_with()
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    if special:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    example = Example("1", "2+2?", f"2+2? <think> is a word{ending}", (0,), response="after_think")
    assert read_responses(tokenizer, [example], [ids]) == [read]
    assert unfinished_thoughts(tokenizer, [example], [ids]) == [unfinished]
    whole = replace(example, response="whole")
    assert unfinished_thoughts(tokenizer, [whole], [ids]) == [False]
    if ending == "<think>\n":
        assert ("</think>" in read_responses(tokenizer, [whole], [ids])[0]) is not unfinished
