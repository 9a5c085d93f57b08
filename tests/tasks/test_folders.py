"""Folders of files: read as each file alone is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsoup.errors import DataError
from rsoup.tasks import Part, Task
from rsoup.tasks.reading import read_rows


def test_texts_of_a_folder_stay_what_they_are(tmp_path: Path) -> None:
    """The readers of datasets make numbers, dates and nulls of such answers."""
    (tmp_path / "train.csv").write_text("question;answer\na;007\nb;1.10\nc;NA\nd;2026-01-02\n")
    (tmp_path / "test.csv").write_text("question;answer\ne;0\n")
    split = Part(("test",), told="eval_split")
    task = Task("t", str(tmp_path), eval_data=str(tmp_path), test=split)
    assert [row.reference for row in read_rows(task, "train").rows] == ["007", "1.10", "NA", "2026-01-02"]
    assert [row.reference for row in read_rows(task, "test").rows] == ["0"]


def test_files_of_a_folder_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "train-0.jsonl").write_text('{"prompt": "a", "answer": "2026-01-02"}\n')
    (tmp_path / "train-1.jsonl").write_text('{"prompt": "b"}\n')
    found = read_rows(Task("t", str(tmp_path), eval_data=str(tmp_path), test=Part(("train",))), "train")
    assert [(row.post, row.reference) for row in found.rows] == [("a", "2026-01-02"), ("b", None)]


@pytest.mark.parametrize("source", ["folder/*.jsonl", "data/*", "rows-?.parquet"])
def test_a_pattern_of_names_is_told_as_one(source: str) -> None:
    with pytest.raises(DataError, match="is a pattern of names") as caught:
        read_rows(Task("t", source), "train")
    assert caught.value.hint.startswith("Give the folder")


def test_a_folder_of_several_forms_of_which_one_would_be_left_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"post": "the lid"}\n{"post": "leaks"}\n')
    (tmp_path / "b.csv").write_text("post\nthe kettle\n")
    with pytest.raises(DataError, match=r"several forms, of which one is read at a time: a\.jsonl, and not b\.csv"):
        read_rows(Task("tiny", str(tmp_path)), "train")
    (tmp_path / "a.jsonl").rename(tmp_path / "train.jsonl")  # a name that says which rows are meant
    assert [row.post for row in read_rows(Task("tiny", str(tmp_path)), "train").rows] == ["the lid"]
