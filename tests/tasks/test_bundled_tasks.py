"""The paper's tasks: rows in the shape of the hub's data sets become the prompts of the paper, odd ones are counted."""

from __future__ import annotations

import doctest
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

import rsoup.tasks
from rsoup.errors import DataError
from rsoup.recipe import TaskSection
from rsoup.tasks import TASKS, Task, resolve_task
from rsoup.tasks.loading import load_examples, read_rows
from rsoup.tasks.rows import UnusableRow, read_assistant, read_news, read_reddit, read_review, read_stack
from tiny import build_tokenizer

LONG = "the kettle boils fast but the lid broke " * 3
"""120 characters, stripped 119."""


def news(text: Any, identifier: Any = "n", prediction: Any = ()) -> dict[str, Any]:
    return {"id": identifier, "text": text, "prediction": list(prediction), "metadata": None}


def write(path: Path, rows: Sequence[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task_of(name: str, **settings: Any) -> Task:
    return resolve_task(TaskSection(name=name, **settings))


def prompts(name: str, source: str, **settings: Any) -> list[str]:
    """Return the prompts of a task's training rows, without a reference answer's beginning."""
    task = task_of(name, data=source, eval_data=source, prefix=False, **settings)
    return [example.prompt for example in load_examples(task, build_tokenizer(), "train").rows]


# What the paper asks


def test_the_prompts_are_those_of_the_paper(tmp_path: Path) -> None:
    article = f"KABUL (Reuters) - {LONG}\nand its price"
    summary = "### Instruction: Generate a one-sentence summary of this post. ### Input: {} ### Response: "
    assert prompts("summary", write(tmp_path / "n.jsonl", [news(article)]), dataset="news") == [
        summary.format(f"{LONG.strip()}  and its price")
    ]
    tldr = {"prompt": f"SUBREDDIT: r/tea\n\nTITLE: lid\n\nPOST: {LONG}\n\nTL;DR:", "completion": " it broke"}
    assert prompts("summary", write(tmp_path / "r.jsonl", [tldr]), dataset="reddit") == [summary.format(LONG.strip())]
    question = {"qid": 4, "question": "Why does\nthe lid break?", "response_j": "It is cheap.", "response_k": "No."}
    assert prompts("stack", write(tmp_path / "s.jsonl", [question])) == [
        "### Instruction: Why does the lid break? ### Response: "
    ]
    film = {"text": "great sound " * 20, "label": 1}
    assert prompts("review", write(tmp_path / "i.jsonl", [film])) == [
        "### Instruction: Generate a movie review. ### Response: "
    ]
    dialogue = {"chosen": "\n\nHuman: What is a lid?\n\nAssistant: A cover.\n\nHuman: Why?\n\nAssistant: Steam."}
    assert prompts("assistant", write(tmp_path / "h.jsonl", [dialogue])) == [
        "### Instruction: What is a lid? ### Response: "
    ]


def test_what_answers_a_row_is_its_reference() -> None:
    row = news(
        f"(Reuters) - {LONG}", prediction=[{"text": "A lid\nbroke.", "score": 1.0}, {"text": "No.", "score": 0.1}]
    )
    assert read_news(row).reference == "A lid broke."
    assert read_news(news(f"(Reuters) - {LONG}")).reference is None
    assert read_news({**row, "prediction": {"text": ["A lid.", "No."], "score": [1.0, 0.1]}}).reference == "A lid."
    pair = [{"text": "worse"}, {"text": "better"}]
    post = {"info": {"id": "t3_a", "post": LONG}, "summaries": pair, "choice": 1}
    assert (read_reddit(post).id, read_reddit(post).reference) == ("t3_a", "better")
    assert read_stack({"qid": 1, "question": "why", "response_j": "good", "response_k": "bad"}).reference == "good"
    film = "great sound " * 20
    assert read_review({"text": film}).reference == film.strip()
    dialogue = "\n\nHuman: a lid, why?\n\nAssistant: A cover.\n\nHuman: And?\n\nAssistant: Steam."
    assert read_assistant({"chosen": dialogue}).reference == "A cover."


def test_only_the_summaries_end_with_their_first_sentence() -> None:
    assert {name: entry.response for name, entry in TASKS.items() if entry.response != "whole"} == {
        "summary": "first_sentence"
    }


# Which rows


@pytest.mark.parametrize(
    ("read", "row", "reason"),
    [
        (read_news, news("a" * 100), "text of 100 characters or fewer"),
        (read_news, news("(Reuters) - " + "a" * 1488), "text of 1500 characters or more"),
        (read_news, news(LONG), "no text after '(Reuters) -'"),
        (read_news, news(LONG + "(Reuters) - \n"), "no text after '(Reuters) -'"),
        (read_news, news(f"(Reuters) - {LONG}", identifier=None), "no id"),
        (read_news, news(None), "no text"),
        (read_news, news(""), "no text"),
        (read_reddit, {"prompt": f"POST: {'a' * 100}\n\nTL;DR:", "completion": "b"}, "text of 100 characters or fewer"),
        (read_reddit, {"prompt": f"POST: {'a' * 1200}\n\nTL;DR:", "completion": ""}, "text of 1200 characters or more"),
        (read_reddit, {"prompt": "POST: \n\nTL;DR:", "completion": "b"}, "no text"),
        (read_reddit, {"info": {"id": "a", "post": None}, "summaries": [], "choice": 0}, "no text"),
        (read_reddit, {"info": {"id": None, "post": LONG}, "summaries": [], "choice": 0}, "no id"),
        (read_stack, {"qid": 1, "question": "a" * 300, "response_j": "b"}, "text of 300 characters or more"),
        (read_stack, {"qid": 1, "question": " ", "response_j": "b"}, "no text"),
        (read_review, {"text": "a" * 200}, "text of 200 characters or fewer"),
        (read_assistant, {"chosen": "\n\nHuman: hello\n\nAssistant: Hi."}, "text of 5 characters or fewer"),
        (read_assistant, {"chosen": f"\n\nHuman: {'a' * 100}\n\nAssistant: Hi."}, "text of 100 characters or more"),
        (read_assistant, {"chosen": "hello, what is a lid?"}, "no dialogue"),
        (read_assistant, {"chosen": None}, "no text"),
    ],
)
def test_a_row_that_the_paper_left_out_is_left_out(read: Any, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        read(row)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_news, news("(Reuters) - " + "a" * 89)),
        (read_news, news("(Reuters) - " + "a" * 1487)),
        (read_reddit, {"prompt": f"POST: {'a' * 101}\n\nTL;DR:", "completion": "b"}),
        (read_reddit, {"prompt": f"POST: {'a' * 1199}\n\nTL;DR:", "completion": "b"}),
        (read_stack, {"qid": 1, "question": "a" * 299, "response_j": "b"}),
        (read_review, {"text": "a" * 201}),
        (read_assistant, {"chosen": "\n\nHuman: sixlet\n\nAssistant: Hi."}),
        (read_assistant, {"chosen": f"\n\nHuman: {'a' * 99}\n\nAssistant: Hi."}),
    ],
)
def test_a_row_just_within_the_bounds_is_taken(read: Any, row: dict[str, Any]) -> None:
    assert read(row).post


def test_odd_rows_are_counted_and_do_not_stop_a_run(tmp_path: Path) -> None:
    russian = f"МОСКВА (Reuters) - {'Чайник кипит быстро, но крышка сломалась. ' * 5}"
    rows = [
        {"id": "z"},
        news(f"(Reuters) - {LONG}", "a", [{"text": "the lid broke"}]),
        news(f"(Reuters) - {LONG}", "a"),
        news(russian, "b", [{"text": "крышка"}]),
        news(None, "c"),
        {"id": "d", "text": f"(Reuters) - {LONG}"},
        news(f"(Reuters) - {LONG}", "e", [None]),
        {"id": "f", "text": f"(Reuters) - {LONG}", "prediction": "a plain summary"},
        {"text": 3, "prediction": {}},
    ]
    source = write(tmp_path / "news.jsonl", rows)
    found = load_examples(task_of("summary", data=source, eval_data=source), build_tokenizer(), "train")
    assert [example.id for example in found.rows] == ["a", "b", "e", "f"]
    assert found.dropped == {"repeated id": 1, "no text": 2, "no column 'prediction'": 1, "no column 'text'": 1}
    assert found.remarks("training") == [
        "5 training rows are left out: no column 'prediction' (1), no column 'text' (1), no text (2), repeated id (1).",
        "2 training rows have no reference answer for their prompt to end with.",
    ]


def test_posts_without_an_id_count_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"POST: {LONG}{end}\n\nTL;DR:", "completion": "b"} for end in ("x", "y", "x")]
    source = write(tmp_path / "tldr.jsonl", rows)
    found = read_rows(task_of("summary", dataset="reddit", data=source, eval_data=source), "train")
    assert [row.id for row in found.rows] == ["1", "2"]
    assert found.dropped == {"repeated post": 1}


def test_a_question_has_to_stay_below_512_tokens_with_its_template(tmp_path: Path) -> None:
    overhead = len(build_tokenizer()("### Instruction:  ### Response: ")["input_ids"])
    rows = [{"id": count, "post": "a " * count} for count in (511 - overhead, 512 - overhead)]
    source = write(tmp_path / "q.jsonl", rows)
    task = task_of("stack", data=source, eval_data=source, column="post")
    found = load_examples(task, build_tokenizer(), "train")
    assert [len(example.tokens) for example in found.rows] == [511]
    assert found.dropped == {"prompt longer than 511 tokens": 1}


# Where rows come from


def save_splits(folder: Path, **splits: list[dict[str, Any]]) -> str:
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(folder))
    return str(folder)


def ids(task: Task, split: Literal["train", "test"]) -> list[str | None]:
    return [row.id for row in read_rows(task, split).rows]


def test_the_news_are_trained_on_their_test_split(tmp_path: Path) -> None:
    rows = [news(f"(Reuters) - {LONG}", name, [{"text": "s", "score": 1.0}]) for name in ("small", "large")]
    saved = save_splits(tmp_path / "news", train=rows[:1], test=rows[1:])
    task = task_of("summary", dataset="news", data=saved)
    assert (ids(task, "train"), ids(task, "test")) == (["large"], ["small"])


def test_a_copy_of_the_hubs_folder_is_read_as_on_the_hub(tmp_path: Path) -> None:
    for part in ("rl", "evaluation", "reward"):
        rows = [{"qid": f"{part}{i}", "question": "why?", "response_j": "so", "response_k": "no"} for i in (1, 1, 2)]
        write(tmp_path / "copy/data" / part / "rows.jsonl", rows)
    task = task_of("stack", data=str(tmp_path / "copy"))
    assert ids(task, "train") == ["rl1", "rl2"]
    assert ids(task, "test") == ["evaluation1", "evaluation2"]


def test_no_more_rows_than_asked_for_are_read(tmp_path: Path) -> None:
    rows = [{"qid": index // 2, "question": "why?", "response_j": "so"} for index in range(2100)]
    source = write(tmp_path / "s.jsonl", rows)
    assert len(read_rows(task_of("stack", data=source, eval_data=source), "test").rows) == 1000


def test_rows_of_ones_own_take_a_bundled_tasks_template(tmp_path: Path) -> None:
    rows = [{"number": "k", "text": "the lid", "answer": "broke"}, {"number": "l", "text": "the box", "answer": None}]
    source = write(tmp_path / "own.jsonl", rows)
    settings = {"column": "text", "reference": "answer", "id": "number"}
    found = load_examples(task_of("summary", data=source, eval_data=source, **settings), build_tokenizer(), "train")
    assert [(row.id, row.post, row.prefix) for row in found.rows] == [("k", "the lid", "broke"), ("l", "the box", "")]
    assert found.rows[0].prompt.startswith(
        "### Instruction: Generate a one-sentence summary of this post. ### Input: the lid"
    )
    assert found.without_reference == 1
    assert found.rows[0].response == "first_sentence"


def test_reviews_of_ones_own_are_reference_answers(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [{"body": "great sound"}])
    found = read_rows(task_of("review", data=source, eval_data=source, column="body"), "train")
    assert [(row.post, row.reference) for row in found.rows] == [("Generate a movie review.", "great sound")]


def test_data_of_another_shape_get_told_what_is_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "own.jsonl", [{"body": "great sound"}])
    with pytest.raises(DataError) as caught:
        ids(task_of("stack", data=source), "train")
    assert "has no column 'post', and not the shape that the task stack reads" in caught.value.message
    assert caught.value.hint == "Set task.column. Known: body. (README: #no-such-column)"


def test_the_documented_way_to_add_a_task_works() -> None:
    try:
        result = doctest.testmod(rsoup.tasks)
    finally:
        TASKS.pop("tickets", None)
    assert result.attempted > 0
    assert result.failed == 0
