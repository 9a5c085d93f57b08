"""Each shape that people's data come in: what is asked, what answers it, and what is said of it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest

from rsoup.tasks.rows import UnusableRow
from rsoup.tasks.shapes import Question, answer_of, lookup, recognise
from rsoup.tasks.turns import joined, parted, spoken, turns, with_system


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user("Hi"), assistant("Hello!"), user("2+2?"), assistant("4")]
HH = "\n\nHuman: Is tea hot?\n\nAssistant: It is.\n\nHuman: And ice?\n\nAssistant:"

SHAPES: list[tuple[str, dict[str, Any], Any, str | None, str | None]] = [
    # a name, a row, the prompt, the reference, what is said
    ("post", {"post": " a ", "answer": "b"}, "a", None, None),
    ("messages (tulu-3-sft)", {"id": "1", "messages": TALK, "source": "s"}, tuple(TALK[:4]), "4",
     "Rows are conversations (messages); the reference is the assistant's turn after the prompt."),
    ("messages that end with the user", {"messages": TALK[:2]}, tuple(TALK[:2]), None,
     "Rows are conversations (messages); the reference is the assistant's turn after the prompt."),
    ("messages with the answer beside them (RLVR)", {"messages": TALK[:2], "ground_truth": ["4"], "dataset": "x"},
     tuple(TALK[:2]), "4", "Rows are conversations (messages); the reference is ground_truth."),
    ("turns within a column", {"input": {"messages": TALK[:2]}, "expected_answer": 4}, tuple(TALK[:2]), "4", None),
    ("NuminaMath", {"problem": "p", "solution": "s", "messages": [user("p"), assistant("s")]}, (user("p"),), "s",
     "Rows are conversations (messages); the reference is the assistant's turn after the prompt, or else solution."),
    ("ShareGPT (OpenHermes)",
     {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi", "weight": None},
                        {"from": "gpt", "value": "Hello!"}], "system_prompt": None, "source": "x"},
     (SYSTEM, user("Hi")), "Hello!",
     "Rows are conversations (conversations); the reference is the assistant's turn after the prompt. "
     "The column system_prompt is the system message where it is filled."),
    ("conversations with roles (OpenThoughts)",
     {"system": "Think.", "conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
     (user("q"),), "a", None),
    ("prompt, completion", {"prompt": "The sky is", "completion": " blue."}, "The sky is", "blue.",
     "Rows are prompts with answers (prompt, completion); the reference is completion."),
    ("prompt, completion of turns", {"prompt": [user("Sky?")], "completion": [assistant("Blue.")]}, (user("Sky?"),),
     "Blue.", "Rows are prompts with answers (prompt, completion); the reference is completion."),
    ("an unwanted completion", {"prompt": "Sky?", "completion": "Red.", "label": False}, "Sky?", None,
     "Rows are prompts with answers (prompt, completion); the reference is completion where label is true."),
    ("an unwanted completion of a table", {"prompt": "Sky?", "completion": "Red.", "label": "False"}, "Sky?", None,
     None),
    ("a wanted completion", {"prompt": "Sky?", "completion": "Blue.", "label": "1"}, "Sky?", "Blue.", None),
    ("a completion of a kind", {"prompt": "Sky?", "completion": "Blue.", "label": "weather"}, "Sky?", "Blue.",
     "Rows are prompts with answers (prompt, completion); the reference is completion."),
    ("prompt, chosen, rejected", {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."}, "Sky?", "Blue.",
     "Rows are pairs of answers (prompt, chosen, rejected); the reference is the chosen answer."),
    ("pairs under a question (orca_dpo_pairs)",
     {"system": "", "question": "Sky?", "chosen": "The sky is blue.", "rejected": "The sky is red."}, "Sky?",
     "The sky is blue.", "Rows are pairs of answers (question, chosen, rejected); the reference is the chosen answer."),
    ("pairs under a question with a system message",
     {"system": "Be brief.", "question": "Sky?", "chosen": "Blue.", "rejected": "Red."}, "Sky?", "Blue.",
     "Rows are pairs of answers (question, chosen, rejected); the reference is the chosen answer. "
     "The column system is the system message where it is filled."),
    ("a question about a passage (SQuAD)",
     {"context": "Tea is hot. ", "question": "Is it?", "answers": {"text": ["hot"], "answer_start": [7]}},
     "Tea is hot.\n\nIs it?", None, "Rows are questions (context, question); they have no reference answer."),
    ("a question about a passage (BoolQ)", {"question": "Is it?", "passage": "Tea is hot.", "answer": True},
     "Tea is hot.\n\nIs it?", "true", "Rows are questions (passage, question, answer); the reference is answer."),
    ("an empty column of answers beside a filled one", {"question": "1+1?", "answer": None, "solution": "2"}, "1+1?",
     "2", "Rows are questions (question, solution); the reference is solution."),
    ("DeepMath", {"question": "1+1?", "final_answer": "2", "topic": "sums"}, "1+1?", "2", None),
    ("a question about no passage", {"context": "", "question": "Is it?", "answer": "Yes."}, "Is it?", "Yes.", None),
    ("a question with choices (MMLU)", {"question": "Sky?", "choices": ["blue", "red"], "answer": 0}, "Sky?", "0",
     "Rows are questions (question, answer); the reference is answer. Prompts do not hold the column choices."),
    ("single turns", {"prompt": user("Sky?"), "chosen": assistant("Blue."), "rejected": assistant("Red.")},
     (user("Sky?"),), "Blue.", None),
    ("answers of turns to a text", {"prompt": "Sky?", "chosen": [assistant("Blue.")], "rejected": [assistant("Red.")]},
     "Sky?", "Blue.",
     "Rows are pairs of answers (prompt, chosen, rejected); the reference is the chosen answer."),
    ("answers of a turn to a text", {"prompt": "Sky?", "chosen": assistant("Blue."), "rejected": assistant("Red.")},
     "Sky?", "Blue.", None),
    ("a prompt that a template wrote", {"prompt": " <|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\n"},
     "<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\n", None, None),
    ("a prompt with blanks around it", {"prompt": "\nSky? \n"}, "Sky?", None, None),
    ("answers that repeat their prompt", {"prompt": "Sky?", "chosen": "Sky? Blue.", "rejected": "Sky? Red."}, "Sky?",
     "Blue.", None),
    ("prompt, chosen, rejected of turns (hh-rlhf-helpful-base)",
     {"prompt": [user("Hi"), assistant("Hello!"), user("2+2?")], "chosen": [assistant("4")],
      "rejected": [assistant("5")]},
     (user("Hi"), assistant("Hello!"), user("2+2?")), "4", None),
    ("turns that repeat their prompt", {"prompt": [user("2+2?")], "chosen": [user("2+2?"), assistant("4")],
                                        "rejected": [user("2+2?"), assistant("5")]}, (user("2+2?"),), "4", None),
    ("chosen, rejected of turns (UltraFeedback)",
     {"prompt": "2+2?", "prompt_id": "x", "chosen": [user("2+2?"), assistant("4")],
      "rejected": [user("2+2?"), assistant("5")], "messages": [user("2+2?"), assistant("4")], "score_chosen": 8.5},
     (user("2+2?"),), "4",
     "Rows are pairs of answers (chosen, rejected) that begin with their prompt; "
     "the reference is the rest of the chosen one."),
    ("turns that part early", {"chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                               "rejected": [user("a"), assistant("x"), user("y"), assistant("z")]},
     (user("a"),), "b", None),
    ("chosen, rejected texts (hh-rlhf)", {"chosen": f"{HH} It is cold.", "rejected": f"{HH} It is hot."}, HH.strip(),
     "It is cold.", None),
    ("chosen, rejected texts", {"chosen": "The sky is blue.", "rejected": "The sky is black."}, "The sky is", "blue.",
     None),
    ("verl", {"data_source": "gsm8k", "prompt": [user("1+1?")], "ability": "math",
              "reward_model": {"style": "rule", "ground_truth": 2}, "extra_info": {"index": 0}},
     (user("1+1?"),), "2", "Rows are verl's (prompt, reward_model); the reference is reward_model.ground_truth."),
    ("alpaca", {"instruction": "Add.", "input": "1 1", "output": "2"}, "Add.\n\n1 1", "2",
     "Rows are instructions (instruction, input, output); the reference is output."),
    ("alpaca without input", {"instruction": "Add 1 and 1.", "input": "", "output": "2"}, "Add 1 and 1.", "2", None),
    ("dolly", {"instruction": "Who?", "context": "Bo is.", "response": "Bo", "category": "qa"}, "Who?\n\nBo is.", "Bo",
     "Rows are instructions (instruction, context, response); the reference is response."),
    ("gsm8k", {"question": "1+1?", "answer": 2}, "1+1?", "2",
     "Rows are questions (question, answer); the reference is answer."),
    ("prompts of turns", {"prompt": [SYSTEM, user("1+1?")], "solution": 0.5}, (SYSTEM, user("1+1?")), "0.5",
     "Rows are prompts (prompt, solution); the reference is solution."),
    ("a prompt alone", {"prompt": "1+1?"}, "1+1?", None, "Rows are prompts (prompt); they have no reference answer."),
    ("text", {"text": "A kettle.", "label": 1}, "A kettle.", None,
     "Rows are texts (text); they have no reference answer."),
    ("turns by columns", {"messages": {"role": ["user", "assistant"], "content": ["Hi", "Hello!"]}}, (user("Hi"),),
     "Hello!", None),
    ("turns as JSON text", {"messages": json.dumps([user("Hi"), assistant("Hello!")])}, (user("Hi"),), "Hello!", None),
    ("turns as Python text", {"messages": repr([user("Hi"), assistant("Hello!")])}, (user("Hi"),), "Hello!", None),
    ("turns as numpy prints them",
     {"messages": str(np.array([user("It's \"a\"}\n {b"), assistant("Hello!")], dtype=object))},
     (user("It's \"a\"}\n {b"),), "Hello!", None),
    ("turns as an array of numpy", {"messages": repr(np.array([user("Hi"), assistant("Hello!")], dtype=object))},
     (user("Hi"),), "Hello!", None),
    ("a text in brackets", {"prompt": "[INST] Hi [/INST]"}, "[INST] Hi [/INST]", None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "prompt", "reference", "said"), [shape[1:] for shape in SHAPES], ids=[shape[0] for shape in SHAPES]
)
def test_a_shape_is_recognised(row: dict[str, Any], prompt: Any, reference: str | None, said: str | None) -> None:
    shape = recognise(row, "input.messages" if "input" in row and "instruction" not in row else None)
    assert shape is not None
    assert shape.read(row) == Question(prompt, reference)
    if said is not None or "post" in row:
        assert shape.said(None, None) == said


def test_a_prompt_that_begins_the_answer_is_not_cut_where_the_answer_is_elsewhere() -> None:
    row = {"prompt": [user("2+2?"), assistant("It is ")], "answer": "4"}
    with pytest.raises(UnusableRow, match="a prompt that does not end with the user's turn"):
        recognise(row, None).read(row)  # type: ignore[union-attr]


@pytest.mark.parametrize("row", [{}, {"body": "x", "score": 1}, {"chosen": "a"}])
def test_other_columns_have_no_shape(row: dict[str, Any]) -> None:
    assert recognise(row, None) is None


def test_a_named_column_is_the_one_that_is_asked() -> None:
    row = {"prompt": "first", "messages": TALK, "title": "t", "extra": {"q": "inner"}}
    asked = {name: recognise(row, name).read(row) for name in ("prompt", "messages", "title", "extra.q")}  # type: ignore[union-attr]
    assert asked == {
        "prompt": Question("first"),
        "messages": Question(tuple(TALK[:4]), "4"),
        "title": Question("t"),
        "extra.q": Question("inner"),
    }
    assert recognise(row, "titel") is None
    assert recognise(row, "title").said("title", None) is None  # type: ignore[union-attr]


def test_a_named_reference_is_told_in_the_place_of_the_shapes() -> None:
    shape = recognise({"prompt": [user("a")], "reward_model": {"ground_truth": "1"}}, None)
    assert shape is not None
    assert (
        shape.said("prompt", "extra.answer") == "Rows are verl's (prompt, reward_model); the reference is extra.answer."
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [assistant("a")]}, "no user's turn"),
        ({"messages": [user("a"), {"role": "narrator", "content": "b"}]}, "a turn of the unknown role 'narrator'"),
        ({"messages": [user("  "), assistant("a")]}, "an empty turn"),
        ({"messages": [user("a"), assistant("")]}, "an empty turn"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]},
         "a turn with a part that is no text (image)"),
        ({"messages": [{"role": "user", "content": 3}]}, "a turn that is no text"),
        ({"messages": [user("a"), {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
                       {"role": "tool", "content": "1"}, assistant("one")]},
         "tools are called after the last user's turn"),
        ({"prompt": [user("a"), assistant("b")], "completion": [assistant("c")]},
         "a prompt that does not end with the user's turn"),
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]}, "no user's turn"),
        ({"chosen": "Blue.", "rejected": "Red."}, "answers that begin with no common prompt"),
        ({"prompt": "[{'role': 'user', 'content': 'a'}, ...]"}, "turns that are spelled in a way that cannot be read"),
        ({"prompt": 7}, "a number in the place of text"),
        ({"prompt": None}, "no text"),
        ({"prompt": {"a": 1}}, "an object in the place of text"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "turns before the instruction (history)"),
    ],
)  # fmt: skip
def test_a_row_is_left_out_for_its_true_reason(row: dict[str, Any], reason: str) -> None:
    column = "messages" if row.get("messages") == [] else None
    shape = recognise(row, column)
    assert shape is not None
    with pytest.raises(UnusableRow) as caught:
        shape.read(row)
    assert str(caught.value) == reason


def test_nothing_is_said_of_what_the_recipe_says() -> None:
    question, alpaca = {"question": "a", "answer": "b"}, {"instruction": "a", "input": "", "output": "b"}
    asked, told = recognise(question, "question"), recognise(alpaca, "instruction")
    assert asked is not None
    assert told is not None
    assert asked.said("question", "answer") is None
    assert asked.said("question", None) == "Rows are questions (question, answer); the reference is answer."
    assert told.said("instruction", "output") is not None  # the input is joined to it


def test_calls_of_tools_before_the_last_turn_stay_as_they_are() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}], "name": None}
    found = turns([user("a"), call, {"role": "tool", "content": "1", "tool_call_id": "x"}, assistant("one"), user("b")])
    assert found is not None
    prompt, reference = parted(found)
    assert reference is None
    assert prompt[1] == {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
    assert prompt[2] == {"role": "tool", "content": "1", "tool_call_id": "x"}


def test_what_tables_add_to_turns_is_left_out_and_the_rest_can_be_hashed() -> None:
    call = {"function": {"name": "f", "arguments": {"city": "Rome", "query": None}}, "id": None}
    found = turns(
        [{**user("a"), "when": dt.datetime(2026, 1, 2), "tool_calls": None}, {**assistant("b"), "tool_calls": [call]}]
    )
    assert found == (
        {**user("a"), "when": "2026-01-02T00:00:00"},
        {**assistant("b"), "tool_calls": [{"function": {"name": "f", "arguments": {"city": "Rome"}}}]},
    )


def test_a_message_of_a_tree_is_no_prompt_unless_its_column_is_named() -> None:
    row = {"message_id": "1", "parent_id": None, "text": "Hi", "role": "prompter"}
    with pytest.raises(UnusableRow, match="a single message of a tree of conversations"):
        recognise(row, None)
    assert recognise(row, "text").read(row) == Question("Hi")  # type: ignore[union-attr]
    assert recognise({"text": "Hi", "role": "x"}, None).read({"text": "Hi"}) == Question("Hi")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        ("### Human: Is it?### Assistant: Yes.", True),
        ("<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>", True),
        ("<s>[INST] Is it? [/INST] Yes.</s>", True),
        ("\n\nHuman: Is it?\n\nAssistant: Yes.", True),
        ("### Instruction:\nIs it?\n\n### Response:\n", False),
        ("<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n", False),
        ("The Assistant: a novel.", False),
        ("Is it?", False),
    ],
)
def test_a_text_that_ends_with_its_answer_is_no_prompt_unless_its_column_is_named(text: str, answered: bool) -> None:
    row = {"text": text}
    assert str(recognise(row, "text").read(row).prompt).strip() == text.strip()  # type: ignore[union-attr]
    if not answered:
        assert str(recognise(row, None).read(row).prompt).strip() == text.strip()  # type: ignore[union-attr]
        return
    with pytest.raises(UnusableRow, match="a conversation in one text that ends with its answer"):
        recognise(row, None).read(row)  # type: ignore[union-attr]


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a "}, {"text": "b"}, "c", {"type": "input_text", "text": ""}]
    assert turns([{"role": "User", "content": parts}]) == (user("a b\nc"),)


def test_a_new_line_is_between_parts_that_would_be_one_word() -> None:
    assert joined(["Summarize:", "a text", "\nb ", "c", "", "d"]) == "Summarize:\na text\nb c\nd"


@pytest.mark.parametrize(
    "value", ["[1, 2]", "[not json]", "[" * 99 + "]" * 99, [1], ["a"], {"role": "user"}, [{"name": "x"}], None, 3, []]
)
def test_what_is_no_conversation_is_not_taken_for_one(value: Any) -> None:
    assert turns(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2, "2"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        (" a ", "a"),
        ("", None),
        (None, None),
        (float("nan"), None),
        (["a"], "a"),
        (["a", "b"], '["a", "b"]'),
        ([3], "3"),
        (10.0, "10"),
        (1e20, "1e+20"),
        ({"x": [1]}, '{"x": [1]}'),
        ([assistant(" a ")], "a"),
        ([], None),
    ],
)
def test_a_reference_is_a_text(value: Any, text: str | None) -> None:
    assert answer_of(value) == text


def test_a_system_message_is_added_replaced_or_taken_out() -> None:
    other = {"role": "system", "content": "Rhyme."}
    assert with_system((user("a"),), "Rhyme.", replace=False) == (other, user("a"))
    assert with_system((SYSTEM, user("a")), "Rhyme.", replace=False) == (SYSTEM, user("a"))
    assert with_system((SYSTEM, user("a")), "Rhyme.", replace=True) == (other, user("a"))
    assert with_system((SYSTEM, user("a")), "", replace=True) == (user("a"),)
    assert with_system((SYSTEM, user("a")), None, replace=True) == (SYSTEM, user("a"))


def test_a_dialogue_in_one_text_has_turns() -> None:
    assert spoken(HH.strip()) == (user("Is tea hot?"), assistant("It is."), user("And ice?"))
    assert spoken("Human: a") is None
    assert spoken("a\n\nAssistant:") is None


def test_a_name_with_points_leads_inside() -> None:
    row = {"a": {"b": {"c": 1}}, "a.b": 2}
    assert lookup(row, "a.b.c") == 1
    assert lookup(row, "a.b") == 2
    assert recognise(row, "a.x") is None


def test_a_question_that_is_named_is_asked_without_its_passage() -> None:
    row = {"context": "Tea is hot.", "question": "Is it?", "answer": "Yes."}
    for column, prompt in (("question", "Is it?"), ("context", "Tea is hot."), (None, "Tea is hot.\n\nIs it?")):
        shape = recognise(row, column)
        assert shape is not None
        assert shape.read(row).prompt == prompt
