"""Tasks and data: what is asked, which rows are read in which split, and what is said of bad ones."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers.processors import TemplateProcessing

from rsoup.errors import DataError, RecipeError
from rsoup.recipe import TaskSection
from rsoup.tasks import TASKS, Task, resolve_task
from rsoup.tasks.loading import Rows, load_examples, posts_sha256, read_rows
from tiny import build_tokenizer

ROWS = [{"id": f"r{index}", "post": f"the kettle {index}"} for index in range(10)]


def write_jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_column_of_references_that_is_nowhere_is_named(tmp_path: Path) -> None:
    rows = [{"post": "a"}, {"post": "b", "answer": None}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    task = Task("t", source, eval_data=source, reference="answer")
    assert [row.reference for row in read_rows(task, "train").rows] == [None, None]
    with pytest.raises(DataError, match="has no column 'anser'") as caught:
        read_rows(Task("t", source, eval_data=source, reference="anser"), "train")
    assert caught.value.hint == "Set task.reference. Did you mean answer?"


def rows_of(source: str, column: str = "post") -> Rows:
    return read_rows(Task("t", source, eval_data=source, column=column), "train")


def read_posts(source: str, column: str, split: Literal["train", "test"]) -> list[tuple[str | None, str]]:
    return [(row.id, row.post) for row in read_rows(Task("t", source, eval_data=source, column=column), split).rows]


def ids(task: Task, split: Literal["train", "test"]) -> list[str]:
    return [row.id for row in load_examples(task, build_tokenizer(), split).rows]


def test_the_last_share_of_the_rows_is_held_out(tmp_path: Path) -> None:
    task = Task("t", write_jsonl(tmp_path / "a.jsonl"), eval_share=0.3)
    assert ids(task, "train") == [f"r{index}" for index in range(7)]
    assert ids(task, "test") == ["r7", "r8", "r9"]


def test_held_out_rows_of_their_own_leave_the_training_rows_whole(tmp_path: Path) -> None:
    task = Task("t", write_jsonl(tmp_path / "a.jsonl"), eval_data=write_jsonl(tmp_path / "b.jsonl", ROWS[:2]))
    assert ids(task, "train") == [row["id"] for row in ROWS]
    assert ids(task, "test") == ["r0", "r1"]


def test_what_is_asked_twice_falls_into_one_split(tmp_path: Path) -> None:
    """The rows 0 and 9 ask the same: held out by their places, the last would be trained on too."""
    rows = [*ROWS[:9], {"id": "r9", "post": ROWS[0]["post"]}, {"id": "r10", "post": ROWS[8]["post"]}]
    task = Task("t", write_jsonl(tmp_path / "a.jsonl", rows), eval_share=0.2)
    assert ids(task, "train") == ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r9"]
    assert ids(task, "test") == ["r7", "r8", "r10"]
    assert read_rows(task, "test").repeats == (
        "1 of 3 held-out rows repeat what another one asks: errors and intervals, which take them for different ones, "
        "come out too small.",
    )
    assert read_rows(task, "train").repeats == ()
    alone = Task("t", write_jsonl(tmp_path / "b.jsonl", rows[:9]), eval_share=0.2)
    assert posts_sha256(task, "train") != posts_sha256(alone, "train")


def test_prompts_that_end_with_other_parts_of_an_answer_ask_different_things(tmp_path: Path) -> None:
    rows = [{"id": str(n), "post": "Write a review.", "answer": f"{n} of ten"} for n in range(10)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    found = read_rows(Task("t", source, reference="answer", prefix=(1, 2)), "test")
    assert ([row.id for row in found.rows], found.repeats) == (["8", "9"], ())


def test_rows_that_all_ask_one_thing_are_split_by_their_places_and_this_is_told(tmp_path: Path) -> None:
    task = Task("t", write_jsonl(tmp_path / "a.jsonl", [{"id": str(n), "post": "a haiku"} for n in range(10)]))
    assert (ids(task, "train"), ids(task, "test")) == ([str(n) for n in range(8)], ["8", "9"])
    said = load_examples(task, build_tokenizer(), "test").remarks("held-out")
    assert [line.partition(":")[0] for line in said] == [
        "warning", "1 of 2 held-out rows repeat what another one asks"
    ]  # fmt: skip
    assert "2 of 2 held-out rows ask what a training row asks" in said[0]


def test_held_out_rows_of_their_own_that_are_trained_on_are_told(tmp_path: Path) -> None:
    task = Task("t", write_jsonl(tmp_path / "a.jsonl"), eval_data=write_jsonl(tmp_path / "b.jsonl", ROWS[8:]))
    assert "2 of 2 held-out rows ask what a training row asks" in read_rows(task, "test").repeats[0]
    other = Task("t", write_jsonl(tmp_path / "c.jsonl", ROWS[:8]), eval_data=task.eval_data)
    assert read_rows(other, "test").repeats == ()


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ([{"messages": [{"role": "narrator", "content": "b"}]}], "Call the roles system, user, assistant and tool (hu"),
        ([{"messages": [{"role": "assistant", "content": "b"}]}], "Give conversations in which the user speaks"),
        ([{"prompt": 3}], "Set task.column."),
        ([{"prompt": ""}], "Give a data set with at least one row"),
    ],
)  # fmt: skip
def test_what_to_do_fits_the_reason_that_left_most_rows_out(
    tmp_path: Path, rows: list[dict[str, Any]], hint: str
) -> None:
    with pytest.raises(DataError, match="none of its rows is usable") as caught:
        read_rows(Task("t", write_jsonl(tmp_path / "a.jsonl", rows)), "train")
    assert caught.value.hint.startswith(hint)


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    task = Task("t", write_jsonl(tmp_path / "a.jsonl", ROWS[:1]))
    with pytest.raises(DataError, match=r"too few usable rows \(1\) to hold some out"):
        ids(task, "train")


def test_too_few_rows_say_what_was_left_out(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "post": ""}, {**ROWS[2], "id": ROWS[0]["id"]}]
    with pytest.raises(DataError, match=r"too few usable rows \(1\) to hold some out; left out: "):
        ids(Task("t", write_jsonl(tmp_path / "a.jsonl", rows)), "train")


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    jsonl = write_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("id,post\n" + "".join(f"{row['id']},{row['post']}\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    splits = {"train": Dataset.from_list(ROWS), "validation": Dataset.from_list(ROWS[:1])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "many"))

    expected = read_posts(jsonl, "post", "train")
    assert expected[0] == ("r0", "the kettle 0")
    for name in ("a.csv", "a.parquet", "one", "many"):
        assert read_posts(str(tmp_path / name), "post", "train") == expected
    assert read_posts(str(tmp_path / "many"), "post", "test") == expected[:1]


def test_a_byte_order_mark_is_not_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("post\nthe lid\n", encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_text('{"post": "the lid"}\n', encoding="utf-8-sig")
    for name in ("a.csv", "a.jsonl"):
        assert read_posts(str(tmp_path / name), "post", "train") == [("1", "the lid")]


def test_a_post_may_span_lines_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('post\n"the lid\nbroke"\n')
    assert read_posts(str(tmp_path / "a.csv"), "post", "train") == [("1", "the lid\nbroke")]


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    """JSON can spell half of a pair that only together is a character."""
    (tmp_path / "a.jsonl").write_text('{"post": "the \\ud83d lid"}\n{"post": "the lid"}\n')
    found = rows_of(str(tmp_path / "a.jsonl"))
    assert [row.post for row in found.rows] == ["the lid"]
    assert found.dropped == {"text that is not Unicode": 1}


def test_a_column_of_ids_that_is_nowhere_is_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="has no column 'idd'") as caught:
        read_rows(Task("t", source, eval_data=source, id="idd"), "train")
    assert caught.value.hint == "Set task.id. Did you mean id?"


def test_a_saved_data_set_of_ones_own_keeps_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    splits = {"train": Dataset.from_list(ROWS), "validation": Dataset.from_list([{"id": "v", "post": "the lid"}])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "many"))
    task = resolve_task(TaskSection(data=str(tmp_path / "many")))
    assert ids(task, "train") == [row["id"] for row in ROWS]
    assert ids(task, "test") == ["v"]
    DatasetDict({"train": splits["train"]}).save_to_disk(str(tmp_path / "one"))
    assert len(ids(resolve_task(TaskSection(data=str(tmp_path / "one"))), "test")) == 2


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas"])
def test_a_saved_data_set_is_read_whatever_form_its_columns_were_given(tmp_path: Path, form: str) -> None:
    from datasets import Dataset

    rows = [{"question": f"q{n}", "answer": n, "tags": ["a", "b"]} for n in range(3)]
    Dataset.from_list(rows).with_format(form, columns=["answer"]).save_to_disk(str(tmp_path / "saved"))
    found = read_rows(resolve_task(TaskSection(data=str(tmp_path / "saved"))), "train").rows
    assert [(row.reference, row.columns["tags"]) for row in found] == [("0", ["a", "b"]), ("1", ["a", "b"])]


def test_a_reference_that_is_a_list_is_said_to_be_read_as_text(tmp_path: Path) -> None:
    def said(answer: Any) -> str:
        rows = [{"question": "a", "reward": {"answer": answer}}]
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        return read_rows(Task("t", source, eval_data=source, reference="reward.answer"), "train").said or ""

    assert 'References such as ["1", "one"] are read as JSON text' in said(["1", "one"])
    assert "JSON text" not in said('["1", "one"]')  # it is one
    assert "JSON text" not in said(["1"])


def test_conversations_without_a_turn_are_told_as_such(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"messages": []}])
    with pytest.raises(DataError, match=r"none of its rows is usable: no text \(1\)"):
        read_rows(Task("t", source, eval_data=source), "train")


def test_a_long_cell_of_a_csv_file_is_a_long_post(tmp_path: Path) -> None:
    text = "the lid " * 30_000
    (tmp_path / "a.csv").write_text(f"post,title\n{text},x\n")
    assert read_posts(str(tmp_path / "a.csv"), "post", "train") == [("1", text.strip())]


def test_a_row_that_a_comma_cut_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("post,title\nthe lid, broke,x\nthe kettle,x\n")
    found = rows_of(str(tmp_path / "a.csv"))
    assert [row.post for row in found.rows] == ["the kettle"]
    assert found.dropped == {"more cells than columns": 1}


def test_a_row_without_an_id_is_known_by_its_number(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": " two "}])
    assert read_posts(source, "text", "train") == [("1", "one"), ("2", "two")]


def test_a_post_with_braces_is_put_into_the_template_as_it_is(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"post": "{post} {0}"}, {"post": "x"}])
    examples = load_examples(Task("t", source, template="say: {post}!", eval_data=source), build_tokenizer(), "train")
    assert examples.rows[0].prompt == "say: {post} {0}!"
    assert examples.rows[0].post == "{post} {0}"


def test_long_prompts_are_left_out_and_counted(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"post": "the " * 5}, {"post": "the"}, {"post": "the " * 4}])
    task = Task("t", source, eval_data=source, max_prompt_tokens=4)
    examples = load_examples(task, build_tokenizer(), "train")
    assert [row.id for row in examples.rows] == ["2", "3"]
    assert examples.dropped == {"prompt longer than 4 tokens": 1}


def test_no_usable_row_is_an_error(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"post": "the the"}])
    with pytest.raises(DataError, match="all 1 prompts are longer than 1 tokens"):
        load_examples(Task("t", source, eval_data=source, max_prompt_tokens=1), build_tokenizer(), "train")


def test_the_chat_template_is_the_tokenizers(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    source = write_jsonl(tmp_path / "a.jsonl", [{"post": "the lid"}])
    examples = load_examples(Task("t", source, eval_data=source, chat=True), tokenizer, "train")
    assert examples.rows[0].prompt == ": the lid :"
    assert list(examples.rows[0].tokens) == tokenizer(": the lid :")["input_ids"]


def test_chat_without_a_chat_template_is_an_error(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="no chat template"):
        load_examples(Task("t", source, eval_data=source, chat=True), build_tokenizer(), "train")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('{"text": "b"}\n', "has no column 'post'.", "Known: text."),
        ('{"posts": "b"}\n', "has no column 'post'.", "Did you mean posts?"),
        ('{"post": "a"}\n{"post": \n', "line 2: is not JSON", "one JSON object per line"),
        ('["a"]\n', "row 1: is not a mapping", "one JSON object per line"),
        ('{"post": "  "}\n{"post": null}\n', "none of its rows is usable: no text (2)", "at least one row"),
        ("\n", "has no rows", "at least one row"),
    ],
)
def test_data_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        rows_of(str(path))
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"text": "z"},
        {"post": "a"},
        {"text": "b"},
        {"post": 3},
        {"post": " "},
        {"id": 2, "post": "c"},
        {"id": "2", "post": "d"},
    ]
    found = rows_of(write_jsonl(tmp_path / "a.jsonl", rows))
    assert [(row.id, row.post) for row in found.rows] == [("2", "a")]
    assert found.dropped == {
        "no column 'post'": 2,
        "no text": 1,
        "a number in the place of text": 1,
        "repeated id": 2,
    }


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.csv", "absent", "./a/b", "a/b/c"])
def test_a_missing_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="there is no such data file"):
        read_posts(name, "post", "train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", b"post", "a .txt file is not data that rsoup reads"),
        ("rows.parquet", b"not parquet", "is not a Parquet file"),
        ("rows.jsonl", b'{"post": "caf\xe9"}\n', "is not UTF-8 text"),
        ("rows.csv", b"post\ncaf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_posts(str(tmp_path / name), "post", "train")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no data that can be read"):
        read_posts(str(tmp_path), "post", "train")


def test_saved_data_without_the_split_names_those_it_has(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({"dev": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="has no split 'train', only dev"):
        read_posts(str(tmp_path / "saved"), "post", "train")


def test_the_hash_of_a_split_follows_its_rows_alone(tmp_path: Path) -> None:
    one = Task("one", write_jsonl(tmp_path / "a.jsonl"))
    same = Task("two", write_jsonl(tmp_path / "b.jsonl"), template="other {post}")
    changed = Task("one", write_jsonl(tmp_path / "c.jsonl", [{"id": "r0", "post": "changed"}, *ROWS[1:]]))
    assert posts_sha256(one, "train") == posts_sha256(same, "train")
    assert posts_sha256(one, "train") != posts_sha256(changed, "train")


def test_the_bundled_reviews_hold_out_posts_that_are_not_trained_on() -> None:
    task = resolve_task(TaskSection(name="reviews"))
    train, test = ([row.post for row in read_rows(task, split).rows] for split in ("train", "test"))
    assert len(set(train)) == len(train)
    assert not set(train) & set(test)
    assert len(train) + len(test) >= 240


def test_a_recipe_overrides_a_bundled_task_key_by_key() -> None:
    task = resolve_task(TaskSection(name="reviews", template="Short: {post}"))
    assert task.template == "Short: {post}"
    assert task.data == TASKS["reviews"].data_sets["reviews"].source


def test_other_data_for_a_bundled_task_leave_its_held_out_rows_behind() -> None:
    task = resolve_task(TaskSection(name="reviews", data="mine.jsonl"))
    assert (task.data, task.eval_data) == ("mine.jsonl", None)
    assert task.template == TASKS["reviews"].template


def test_a_task_of_ones_own_is_called_after_its_data() -> None:
    assert resolve_task(TaskSection(data="posts/kettles.jsonl")) == Task("kettles", "posts/kettles.jsonl")


@pytest.mark.parametrize(
    ("section", "message", "hint"),
    [
        ({"name": "revews"}, "there is no task 'revews'", "Did you mean reviews?"),
        ({"name": "summary", "dataset": "new"}, "no data set 'new'", "Did you mean news?"),
        ({"data": "a.jsonl", "dataset": "news"}, "task.name is not given", "Set task.name"),
        ({}, "neither a name nor data", "task.name or task.data"),
        ({"data": "a.jsonl", "template": "no place"}, "has to contain {post} exactly once", "Summarize"),
        ({"data": "a.jsonl", "template": "{post} {post}"}, "has to contain {post} exactly once", "Summarize"),
    ],
)
def test_a_task_that_says_too_little_is_refused(section: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve_task(TaskSection(**section))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"post": "the lid"}\n{"post": "the box"}\n')
    ending = build_tokenizer()
    plain = ending("the lid")["input_ids"]
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", ending.eos_token_id)]
    )
    assert ending("the lid")["input_ids"] == [*plain, ending.eos_token_id]
    task = Task(name="own", data=str(path), eval_data=str(path))
    assert list(load_examples(task, ending, "train").rows[0].tokens) == plain


def test_a_template_with_chat_tokens_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not know <\|im_start\|>"):
        load_examples(resolve_task(TaskSection(name="reviews")), build_tokenizer(), "train")


def test_a_folder_whose_files_have_different_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"post": "the lid"}\n')
    (tmp_path / "b.json").write_text('{"rope": 1.0, "layers": [1, 2]}\n')
    with pytest.raises(DataError) as caught:
        read_rows(Task("tiny", str(tmp_path)), "train")
    assert str(tmp_path) in caught.value.message
    assert "same columns" in caught.value.hint


def test_rows_keep_their_columns_as_plain_values(tmp_path: Path) -> None:
    table = pa.table(
        {"post": ["a"], "when": [dt.date(2026, 1, 2)], "raw": [b"x"], "tags": [["t"]], "score": [float("nan")]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (found,) = rows_of(str(tmp_path / "a.parquet")).rows
    assert found.columns == {"post": "a", "when": "2026-01-02", "raw": "x", "tags": ["t"], "score": None}


def test_numbers_are_reference_answers(tmp_path: Path) -> None:
    rows = [{"post": "a", "answer": 2}, {"post": "b", "answer": 0.5}, {"post": "c", "answer": False}, {"post": "d"}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    found = read_rows(Task("t", source, eval_data=source, reference="answer"), "train").rows
    assert [row.reference for row in found] == ["2", "0.5", "false", None]


def test_rows_of_no_known_shape_are_told_with_their_columns(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"body": "a", "title": "b"}])
    with pytest.raises(DataError, match="has no column 'post', and no other shape that rsoup knows") as caught:
        read_rows(Task("t", source, eval_data=source), "train")
    assert caught.value.hint == "Set task.column. Known: body, title. (README: #no-such-column)"


def test_lists_that_are_no_conversation_are_told_as_such(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"post": ["a", "b"]}])
    with pytest.raises(DataError, match=r"none of its rows is usable: a list in the place of text \(1\)"):
        rows_of(source)


def test_half_a_character_in_a_turn_is_no_text_either(tmp_path: Path) -> None:
    turns = '[{"role": "system", "content": "\\ud83d"}, {"role": "user", "content": "a"}]'
    (tmp_path / "a.jsonl").write_text(f'{{"messages": {turns}}}\n')
    with pytest.raises(DataError, match=r"text that is not Unicode \(1\)"):
        rows_of(str(tmp_path / "a.jsonl"), "messages")


def test_a_dialogue_in_one_text_becomes_turns_for_a_chat_template(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hot?\n\nAssistant:"
    source = write_jsonl(tmp_path / "a.jsonl", [{"chosen": f"{talk} Yes.", "rejected": f"{talk} No."}])
    (text,) = read_rows(Task("t", source, eval_data=source), "train").rows
    (turns,) = read_rows(Task("t", source, eval_data=source, chat=True), "train").rows
    assert (text.post, text.reference, text.messages) == (talk.strip(), "Yes.", None)
    assert (turns.post, turns.reference, turns.messages) == ("Hot?", "Yes.", ({"role": "user", "content": "Hot?"},))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_rows_nested_beyond_reading_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(f'{{"post": {"[" * 100_000}')
    with pytest.raises(DataError, match="is not JSON"):
        rows_of(str(tmp_path / name))
