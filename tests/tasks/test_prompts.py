"""Prompts: one beginning of the sequence, what was said in them, and refusals that name the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import DataError, RecipeError
from rsoup.recipe import TaskSection
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import Examples, load_examples
from rsoup.tasks.prompts import head_of

from .making import tokenizer_with

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = TURNS + ASK
PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}" + ASK
)
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('System message required') }}{% endif %}" + PLAIN
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
THINKS = TURNS + ASK + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": " Two lines\n\nof it? "},
    {"role": "assistant", "content": "Yes."},
]


def load(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], **section: Any) -> Examples:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = resolve_task(TaskSection(data=str(path), eval_data=str(path), **section))
    return load_examples(task, tokenizer, "train")


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("begins", [(), ("<s>",), ("<s>", "<sop>")])
@pytest.mark.parametrize(
    "section",
    [
        {"template": "Say: {post}"},
        {"template": "<s>Say: {post}"},
        {"template": "<s><sop>Say: {post}"},
        {"chat": True, "chat_template_kwargs": {"start": ""}},
        {"chat": True, "chat_template_kwargs": {"start": "<s>"}},
        {"chat": True, "chat_template_kwargs": {"start": "\n<s>"}},
        {"chat": True, "chat_template_kwargs": {"start": "<s><s>"}},
        {"chat": True, "chat_template_kwargs": {"start": "<s><sop>"}},
    ],
)
def test_a_prompt_has_one_beginning(
    tmp_path: Path, begins: tuple[str, ...], section: dict[str, Any], ends: bool
) -> None:
    """One BOS, whoever writes it: the tokenizer, the chat template, the task's template, or several of them."""
    tokenizer = tokenizer_with("{{ start }}" + PLAIN, begins=begins, ends=ends)
    tokens = load(tmp_path, tokenizer, [{"post": "a kettle"}], **section).rows[0].tokens
    written = json.dumps(section).count("<s>")
    assert tokens.count(tokenizer.bos_token_id) == (1 if begins else written)
    assert tokens[-1] != tokenizer.eos_token_id or section.get("chat")
    if begins and section.get("chat_template_kwargs", {}).get("start") != "\n<s>":
        head = [tokenizer.convert_tokens_to_ids(token) for token in begins]
        assert list(tokens[: len(head)]) == head


def test_a_text_is_tokenised_as_the_tokenizer_does_it(tmp_path: Path) -> None:
    tokenizer = tokenizer_with()
    row = load(tmp_path, tokenizer, [{"post": "a kettle"}], template="Say: {post}").rows[0]
    assert list(row.tokens) == tokenizer("Say: a kettle")["input_ids"]
    assert head_of(tokenizer) == [tokenizer.bos_token_id]
    assert head_of(tokenizer_with(begins=(), ends=True)) == []


def test_a_conversation_goes_through_the_chat_template(tmp_path: Path) -> None:
    """All its turns up to the last user's, blanks and all; the post is that turn, the reference what follows."""
    found = load(tmp_path, tokenizer_with(PLAIN), [{"messages": MESSAGES, "topic": "tea"}])
    row = found.rows[0]
    assert row.prompt == (
        "<|system|>Be brief.</s><|user|>Hi there</s><|assistant|>Hello!</s>"
        "<|user|> Two lines\n\nof it? </s><|assistant|>"
    )
    assert (row.post, row.reference) == ("Two lines\n\nof it?", "Yes.")
    assert row.messages == tuple(MESSAGES[:4])
    assert row.columns == {"messages": MESSAGES, "topic": "tea"}
    said = "Rows are conversations (messages); the reference is the assistant's turn after the prompt."
    assert found.remarks("training") == [said]


def test_what_the_recipe_says_of_a_conversation_counts(tmp_path: Path) -> None:
    rows = [{"messages": MESSAGES, "gold": 7, "key": "k"}]
    section = {"system": "Rhyme.", "template": "Say: {post}", "reference": "gold", "id": "key"}
    row = load(tmp_path, tokenizer_with(PLAIN), rows, **section).rows[0]
    assert row.prompt.startswith("<|system|>Rhyme.</s><|user|>Hi there")
    assert row.prompt.endswith("<|user|>Say: Two lines\n\nof it?</s><|assistant|>")
    assert (row.id, row.reference) == ("k", "7")
    assert row.messages is not None
    assert row.messages[0] == {"role": "system", "content": "Rhyme."}
    bare = load(tmp_path, tokenizer_with(PLAIN), rows, system="").rows[0]
    assert bare.prompt.startswith("<|user|>Hi there")


def test_a_system_message_implies_the_chat_template(tmp_path: Path) -> None:
    row = load(tmp_path, tokenizer_with(PLAIN), [{"post": "a"}], system="Rhyme.").rows[0]
    assert row.prompt == "<|system|>Rhyme.</s><|user|>a</s><|assistant|>"
    assert row.messages is None  # a task of texts stays one
    with pytest.raises(RecipeError, match=r"task.system: is for a chat template, and task.chat is off"):
        resolve_task(TaskSection(data="a.jsonl", system="Rhyme.", chat=False))


def test_a_column_of_system_messages_makes_conversations_of_texts(tmp_path: Path) -> None:
    rows = [{"system_prompt": "Rhyme.", "question": "a", "response": "b"}, {"system_prompt": "", "question": "c"}]
    found = load(tmp_path, tokenizer_with(PLAIN), rows).rows
    assert [row.prompt for row in found] == [
        "<|system|>Rhyme.</s><|user|>a</s><|assistant|>",
        "<|user|>c</s><|assistant|>",
    ]
    assert load(tmp_path, tokenizer_with(PLAIN), rows, chat=False).rows[0].prompt == "a"


def test_arguments_reach_the_chat_template(tmp_path: Path) -> None:
    rows = [{"post": "a"}]
    quiet = load(tmp_path, tokenizer_with(THINKS), rows, chat_template_kwargs={"enable_thinking": False})
    assert quiet.rows[0].prompt.endswith("<|assistant|><think></think>")
    assert load(tmp_path, tokenizer_with(THINKS), rows, chat=True).rows[0].prompt.endswith("<|assistant|>")


def test_a_template_that_takes_texts_never_gets_parts_to_spell(tmp_path: Path) -> None:
    """Of the long post it leaves out the end; given a list, it would write that down as Python prints it."""
    cuts = TURNS.replace("m.content", "m.content[:9]") + ASK
    rows = [{"post": "a kettle that leaks"}, {"post": "kettle"}, {"post": "[{'type': 'text'}]"[:9]}]
    found = load(tmp_path, tokenizer_with(cuts), rows, chat=True)
    assert [row.post for row in found.rows] == ["kettle", "[{'type':"]
    assert found.dropped == {"the chat template leaves out the post": 1}
    quotes = load(tmp_path, tokenizer_with(PARTS), [{"post": "say {'type': 'text'}"}], chat=True)
    assert quotes.rows[0].prompt == "<|user|>say {'type': 'text'}<|assistant|>"


def test_a_template_that_takes_parts_gets_parts(tmp_path: Path) -> None:
    found = load(tmp_path, tokenizer_with(PARTS), [{"post": f"kettle {number}"} for number in range(3)], chat=True)
    assert [row.prompt for row in found.rows] == [f"<|user|>kettle {number}<|assistant|>" for number in range(3)]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
        "{% for m in messages %}{{ m.content.split() | join(' ') }}{% endfor %}",
        "{{ messages | tojson }}",
        "{% for m in messages %}{{ m.content.replace('\\n\\n', '\\n') }}{% endfor %}",
        "You are helpful.{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_blanks_may_change_and_more_be_said(tmp_path: Path, template: str) -> None:
    assert load(tmp_path, tokenizer_with(template), [{"post": 'one "two"\n\n  três'}], chat=True).rows


@pytest.mark.parametrize(
    ("template", "rows", "section", "message", "hint"),
    [
        (NEEDS_SYSTEM, [{"post": "a"}], {"chat": True}, "refuses it: System message required", "Set task.system (--s"),
        (NO_SYSTEM, [{"messages": MESSAGES}], {}, "refuses it: System role not supported", "Set task.system to ''"),
        ("{{ messages", [{"post": "a"}], {"chat": True}, "refuses it: unexpected end", "Set task.chat to false"),
        ("{{ messages[0].content + 3 }}", [{"post": "a"}], {"chat": True}, "the chat template refuses it", "task.chat"),
        ("fixed", [{"post": "a kettle"}], {"chat": True}, "the chat template leaves out the post", "task.chat"),
        ("{{ messages[-1].content }}", [{"messages": MESSAGES}], {}, "leaves out a turn of the system", "task.system"),
        ("{{ messages[0].content }}{{ messages[-1].content }}", [{"messages": MESSAGES}], {},
         "leaves out a turn of the user", "task.chat"),
        (None, [{"messages": MESSAGES}], {}, "conversations, and the model's tokenizer has no chat template", "column"),
        (None, [{"post": "a"}], {"chat": True}, "task.chat is on, but the model's tokenizer has no", "task.chat"),
        (None, [{"post": "a"}], {"system": "b"}, "task.system is for a chat template, and the model's", "instruct"),
        (THINKS, [{"post": "a"}], {"chat_template_kwargs": {"enable_thinkin": False}}, "does not read 'enable_thinkin'",
         "Did you mean enable_thinking?"),
        (PLAIN, [{"messages": MESSAGES}], {"chat": False}, "rows are conversations", "Leave task.chat out"),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be_made_is_refused(
    tmp_path: Path, template: str | None, rows: list[dict[str, Any]], section: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, tokenizer_with(template), rows, **section)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_rows_that_the_template_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"messages": MESSAGES}, {"messages": MESSAGES[1:]}, {"messages": MESSAGES}]
    found = load(tmp_path, tokenizer_with(NO_SYSTEM), rows)
    assert [row.id for row in found.rows] == ["2"]
    assert found.dropped == {"the chat template refuses it: System role not supported": 2}


def test_texts_and_conversations_are_not_mixed(tmp_path: Path) -> None:
    found = load(tmp_path, tokenizer_with(PLAIN), [{"prompt": MESSAGES[1:2]}, {"prompt": "a"}, {"prompt": "b"}])
    assert found.dropped == {"a text among conversations": 2}


def test_held_out_rows_are_like_the_training_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": MESSAGES}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"post": "a"}))
    section = {"data": str(tmp_path / "a.jsonl"), "eval_data": str(tmp_path / "b.jsonl")}
    with pytest.raises(DataError, match="holds texts, and the training rows are conversations"):
        load_examples(resolve_task(TaskSection(**section)), tokenizer_with(PLAIN), "test")
    assert load_examples(resolve_task(TaskSection(**section, chat=True)), tokenizer_with(PLAIN), "test").rows
