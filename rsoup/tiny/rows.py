"""Made-up rows in the shape of a task's data."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsoup.errors import DataError
from rsoup.files import write_text
from rsoup.tasks import Task
from rsoup.tasks.rows import REUTERS, RowReader, read_assistant, read_news, read_reddit, read_review, read_stack

TEXT = """
    the a one some every old new small large red quiet loud cheap good bad fine broken early late great awful
    kettle lid box cable lamp shoe film actor story river city train letter garden price market school weather
    boils breaks works opens falls grows sells moves says shows keeps returns because while after before and but
"""
VOCABULARY = TEXT.split()

ROWS = 12
"""How many are made for each split."""


def write_rows(folder: Path, task: Task) -> tuple[Path, Path]:
    """Write made-up training and held-out rows in the shape that a task reads; return the two files."""
    if task.read is not None and task.read not in MAKERS:
        raise DataError(
            f"The task {task.name} has a shape of its own, of which no rows can be made up.",
            "Give some rows of yours with --set task.data=FILE.",
        )
    paths = folder / "train.jsonl", folder / "test.jsonl"
    for split, path in enumerate(paths):
        rows = [_make(task, index + split * ROWS) for index in range(ROWS)]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return paths


def _make(task: Task, index: int) -> dict[str, Any]:
    words = _Words(index)
    if task.read is not None:
        return MAKERS[task.read](words, index)
    row = {task.id: f"made-up-{index}", task.column or "post": words.text(30)}
    reference = f"{words.text(10)} {index}"  # which ends in a number, as rewards of mathematics read one
    return {**row, task.reference: reference} if task.reference else row


class _Words:
    """Draws sentences; the same ones for the same index."""

    def __init__(self, index: int) -> None:
        self._random = random.Random(index)

    def sentence(self, count: int) -> str:
        """Return a sentence of ``count`` words."""
        return " ".join(self._random.choices(VOCABULARY, k=count)).capitalize() + "."

    def text(self, count: int) -> str:
        """Return sentences of ten words each, ``count`` words in all."""
        return " ".join(self.sentence(min(10, count - start)) for start in range(0, count, 10))


def _news(words: _Words, index: int) -> dict[str, Any]:
    summary = {"text": words.sentence(8), "score": 1.0}
    return {"id": f"made-up-{index}", "text": f"CITY {REUTERS} {words.text(40)}", "prediction": [summary]}


def _reddit(words: _Words, _index: int) -> dict[str, Any]:
    post = words.text(40)
    prompt = f"SUBREDDIT: r/tea\n\nTITLE: {words.sentence(4)}\n\nPOST: {post}\n\nTL;DR:"
    return {"prompt": prompt, "completion": f" {words.sentence(8)}"}


def _stack(words: _Words, index: int) -> dict[str, Any]:
    return {
        "qid": index,
        "question": words.sentence(12),
        "response_j": words.text(20),
        "response_k": words.text(10),
    }


def _review(words: _Words, index: int) -> dict[str, Any]:
    return {"text": words.text(60), "label": index % 2}


def _assistant(words: _Words, _index: int) -> dict[str, Any]:
    answers = words.text(20), words.text(10)
    turn = f"\n\nHuman: {words.sentence(8)}\n\nAssistant: "
    return {"chosen": turn + answers[0], "rejected": turn + answers[1]}


MAKERS: dict[RowReader, Callable[[_Words, int], dict[str, Any]]] = {
    read_news: _news,
    read_reddit: _reddit,
    read_stack: _stack,
    read_review: _review,
    read_assistant: _assistant,
}
"""Rows by what reads them."""
