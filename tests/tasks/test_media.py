"""Pictures and sounds: prompts about them are left out, others are read without them, and this is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsoup.tasks import Task
from rsoup.tasks.media import check_media
from rsoup.tasks.reading import read_rows
from rsoup.tasks.rows import UnusableRow

TURNS = ({"role": "user", "content": "What is it?"},)
MARKED = ({"role": "user", "content": "<image>\nWhat is it?"},)
PICTURE = {"bytes": b"...", "path": None}


@pytest.mark.parametrize(
    ("prompt", "row", "named"),
    [
        (MARKED, {"image": "000.jpg"}, False),
        (MARKED, {"image": "000.jpg"}, True),
        ("<image>Find x.", {"images": ["a.png"]}, False),
        ("<|video_pad|>Who?", {"videos": [PICTURE]}, False),
        (TURNS, {"images": [PICTURE]}, False),
    ],
)
def test_a_prompt_about_a_picture_is_no_text(prompt: Any, row: dict[str, Any], named: bool) -> None:
    with pytest.raises(UnusableRow, match=f"a prompt about pictures, films or sounds .{next(iter(row))}."):
        check_media(prompt, row, named=named)


@pytest.mark.parametrize(
    ("prompt", "row", "named"),
    [
        (TURNS, {"images": []}, False),
        (TURNS, {"image": "http://shop/kettle.png"}, False),
        (TURNS, {"images": [PICTURE]}, True),
        ("A review.", {"images": [PICTURE]}, False),
        ("What does <image> mean in HTML?", {"text": "a"}, False),
    ],
)
def test_other_prompts_are_texts(prompt: Any, row: dict[str, Any], named: bool) -> None:
    check_media(prompt, row, named=named)


def test_pictures_and_sounds_that_nothing_can_open_do_not_stop_anything(tmp_path: Path) -> None:
    from datasets import Audio, Dataset, Features, Image, List, Value, concatenate_datasets

    features = Features({"text": Value("string"), "images": List(Image())})
    saved = Dataset.from_dict({"text": ["a", "b"], "images": [[PICTURE], []]}, features=features)
    sounds = Dataset.from_dict({"audio": [PICTURE, PICTURE]}).cast_column("audio", Audio())
    concatenate_datasets([saved, sounds], axis=1).save_to_disk(str(tmp_path / "saved"))
    found = read_rows(Task("t", str(tmp_path / "saved"), eval_data=str(tmp_path / "saved")), "train")
    assert [row.post for row in found.rows] == ["a", "b"]
    assert found.rows[0].columns["audio"] == {"bytes": "...", "path": None}
    assert found.said is not None
    assert found.said.endswith("Prompts do not hold the column images.")
