"""Tools and options of the chat template that a row brings in columns of TRL's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl.data_utils import apply_chat_template

from rsoup.errors import DataError
from rsoup.recipe import TaskSection
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import Examples, load_examples

from .making import tokenizer_with

TOOLED = (
    "{% if tools %}Tools: {{ tools | tojson }} {% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    "{% if think is defined and not think %}<think></think>{% endif %}"
)
DEAF = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"city": {"type": "string"}}}}
BARE = {"name": "clock", "description": "What time it is."}
ASKED = [{"role": "user", "content": "Hi there"}]


def load(folder: Path, written_by: str, rows: list[dict[str, Any]], **section: Any) -> Examples:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = resolve_task(TaskSection(data=str(path), eval_data=str(path), **section))
    return load_examples(task, tokenizer_with(written_by), "train")


@pytest.mark.parametrize("spelled", [False, True])
def test_tools_and_options_of_rows_are_given_as_trl_gives_them(tmp_path: Path, spelled: bool) -> None:
    tools = [WEATHER, BARE]
    rows = [
        {"prompt": ASKED, "tools": json.dumps(tools) if spelled else tools, "chat_template_kwargs": {"think": False}},
        {"prompt": ASKED, "tools": None, "chat_template_kwargs": None},
        {"prompt": ASKED, "tools": "[]" if spelled else [], "chat_template_kwargs": {"think": True}},
        {"prompt": ASKED},
    ]
    found = load(tmp_path, TOOLED, rows)
    given = [(tools, {"think": False}), (None, {}), (None, {"think": True}), (None, {})]
    oracle = [
        apply_chat_template({"prompt": ASKED, "chat_template_kwargs": options}, tokenizer_with(TOOLED), own)["prompt"]
        for own, options in given
    ]
    assert [row.prompt for row in found.rows] == oracle
    assert "weather" in oracle[0]
    assert oracle[0].endswith("<think></think>")
    assert oracle[1] == oracle[2] == oracle[3]


def test_the_recipe_has_the_last_word_on_options(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "chat_template_kwargs": {"think": True}}]
    found = load(tmp_path, TOOLED, rows, chat_template_kwargs={"think": False})
    assert found.rows[0].prompt.endswith("<think></think>")


def test_keys_that_a_table_filled_with_null_are_no_part_of_a_tool(tmp_path: Path) -> None:
    filled = {**WEATHER, "description": None, "function": {**WEATHER["function"], "strict": None}}
    found = load(tmp_path, TOOLED, [{"prompt": ASKED, "tools": [filled]}])
    assert "null" not in found.rows[0].prompt
    assert found.rows[0].prompt == load(tmp_path, TOOLED, [{"prompt": ASKED, "tools": [WEATHER]}]).rows[0].prompt


def test_rows_whose_tools_a_template_leaves_out_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "tools": [WEATHER]}, {"prompt": [{"role": "user", "content": "Hello"}]}]
    found = load(tmp_path, DEAF, rows)
    assert [row.post for row in found.rows] == ["Hello"]
    assert found.dropped == {"the chat template leaves out the tools": 1}
    with pytest.raises(DataError, match="the chat template leaves out the tools") as caught:
        load(tmp_path, DEAF, rows[:1])
    assert caught.value.hint == "Take a model whose chat template reads tools, or give rows without the column tools."


def test_a_column_called_tools_that_holds_none_is_a_column(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "tools": own} for own in ("hammer, saw", ["hammer"], 3)]
    assert len(load(tmp_path, DEAF, rows).rows) == 3
    texts = [{"post": "Hi there", "tools": [WEATHER]}]
    assert load(tmp_path, DEAF, texts, template="Say: {post}").rows[0].prompt == "Say: Hi there"
