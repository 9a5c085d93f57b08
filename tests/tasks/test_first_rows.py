"""A first row that lacks what others have does not decide how they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsoup.tasks import Task
from rsoup.tasks.first_rows import LOOK
from rsoup.tasks.reading import Rows, read_rows
from rsoup.tasks.rows import Row


def read(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Rows:
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rows(Task("t", str(source), eval_data=str(source), **settings), "train")


def asked(row: Row) -> Any:
    return row.post if row.messages is None else [(turn["role"], turn["content"]) for turn in row.messages]


OPENORCA = [
    {"system_prompt": "", "question": "1+1?", "response": "2"},
    {"system_prompt": "Be kind.", "question": "1+2?", "response": "3"},
]


def test_a_system_message_that_the_first_row_has_not_is_kept(tmp_path: Path) -> None:
    found = read(tmp_path, OPENORCA)
    assert [asked(row) for row in found.rows] == [
        [("user", "1+1?")],
        [("system", "Be kind."), ("user", "1+2?")],
    ]
    assert found.said is not None
    assert found.said.endswith("The column system_prompt is the system message where it is filled.")


def test_a_system_message_that_is_left_out_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, OPENORCA, chat=False)
    assert [asked(row) for row in found.rows] == ["1+1?", "1+2?"]
    assert found.said is not None
    assert found.said.endswith("Prompts do not hold the column system_prompt.")


def test_a_system_message_that_comes_late_is_not_lost(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "system": "Be kind." if n in (LOOK, LOOK + 1) else None} for n in range(LOOK + 3)]
    found = read(tmp_path, rows)
    assert found.dropped == {f"a system message (system), which the first {LOOK} rows have not": 2}
    assert len(found.rows) == LOOK + 1
    assert not read(tmp_path, rows, system="Be brief.", chat=True).dropped


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"prompt": "a"}, {"prompt": "b", "answer": "1"}], [("a", None), ("b", "1")]),
        ([{"prompt": "a", "answer": None, "solution": "1"}], [("a", "1")]),
        ([{"question": "a?", "context": None}, {"question": "b?", "context": "It is."}],
         [("a?", None), ("It is.\n\nb?", None)]),
        ([{"instruction": "a", "output": "1"}, {"instruction": "b", "input": "c", "output": "2"}],
         [("a", "1"), ("b\n\nc", "2")]),
        ([{"prompt": "a", "note": "n"}, {"prompt": "b", "chosen": "1", "rejected": "2"}], [("a", None), ("b", None)]),
    ],
)  # fmt: skip
def test_the_first_rows_tell_the_shape_together(
    tmp_path: Path, rows: list[dict[str, Any]], expected: list[tuple[str, str | None]]
) -> None:
    assert [(row.post, row.reference) for row in read(tmp_path, rows).rows] == expected
