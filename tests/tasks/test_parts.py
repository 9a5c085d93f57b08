"""Data sets of several parts: configurations, splits, and what a recipe says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import DataError, RecipeError
from rsoup.recipe import TaskSection
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import posts_sha256, read_rows

CONFIGS = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
- config_name: socratic
  data_files: [{split: train, path: socratic/train.jsonl}]
---
"""


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder laid out as openai/gsm8k on the hub."""
    folder = tmp_path_factory.mktemp("parts") / "gsm8k"
    for name in ("main/train", "main/test", "socratic/train"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = [{"question": f"{name} {number}", "answer": number} for number in range(4)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(CONFIGS)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder saved by datasets with the splits of HuggingFaceH4's data sets."""
    from datasets import Dataset, DatasetDict

    folder = tmp_path_factory.mktemp("parts") / "h4"
    rows = {name: [{"prompt": f"{name} {number}"} for number in range(4)] for name in ("train_sft", "test_sft")}
    DatasetDict({name: Dataset.from_list(own) for name, own in rows.items()}).save_to_disk(str(folder))
    return str(folder)


def posts(source: str, **section: Any) -> tuple[list[str], list[str]]:
    task = resolve_task(TaskSection(data=source, **section))
    train, test = ([row.post for row in read_rows(task, split).rows] for split in ("train", "test"))  # type: ignore[arg-type]
    return train, test


def test_a_configuration_is_named(configured: str) -> None:
    train, test = posts(configured, config="main", eval_share=0.25)
    assert train == ["main/train 0", "main/train 1", "main/train 2"]
    assert test == ["main/train 3"]
    assert posts(configured, config="main", eval_split="test")[1] == [f"main/test {number}" for number in range(4)]
    both = posts(configured, config="main", eval_data=configured, eval_config="socratic", eval_split="train")
    assert [own[0] for own in both] == ["main/train 0", "socratic/train 0"]


def test_splits_are_named(saved: str) -> None:
    train, test = posts(saved, split="train_sft", eval_split="test_sft")
    assert train == [f"train_sft {number}" for number in range(4)]
    assert test == [f"test_sft {number}" for number in range(4)]
    assert posts(saved, split="test_sft", eval_share=0.5)[1] == ["test_sft 2", "test_sft 3"]


@pytest.mark.parametrize(
    ("section", "message", "hint"),
    [
        ({}, "has the configurations main, socratic", "task.config"),
        ({"config": "man"}, "has no configuration 'man'", "Did you mean main?"),
        ({"config": "socratic", "eval_split": "test"}, "has no split 'test', only train", "task.eval_split"),
    ],
)
def test_a_configuration_that_is_missing_is_told(
    configured: str, section: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        posts(configured, **section)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("key", ["split", "eval_split"])
def test_a_split_of_a_file_is_refused_by_the_key_that_asks_for_it(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"post": "a"}\n{"post": "b"}\n')
    with pytest.raises(DataError, match="is a file, which has no split 'test'") as caught:
        posts(str(tmp_path / "a.jsonl"), **{key: "test"})
    assert f"Leave task.{key} out" in caught.value.hint


def test_a_split_that_is_missing_is_told(saved: str) -> None:
    with pytest.raises(DataError, match="has no split 'train', only train_sft, test_sft") as caught:
        posts(saved)
    assert "task.split" in caught.value.hint


@pytest.mark.parametrize("section", [{"split": "train"}, {"config": "main"}])
def test_a_file_has_no_parts(tmp_path: Path, section: dict[str, str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"post": "a"}\n{"post": "b"}\n')
    (name,) = section
    with pytest.raises(DataError, match=f"is a file, which has no {name}"):
        posts(str(tmp_path / "a.jsonl"), **section)


@pytest.mark.parametrize("split", ["train[:10%]", "train[5:9]", "train+test", "train:3"])
@pytest.mark.parametrize("key", ["split", "eval_split"])
def test_a_slice_is_refused(key: str, split: str) -> None:
    with pytest.raises(RecipeError, match=f"task.{key}: .* is a slice"):
        resolve_task(TaskSection(data="someone/rows", **{key: split}))


def test_the_split_that_is_trained_on_is_not_held_out() -> None:
    with pytest.raises(RecipeError, match="'train_sft' is the split that is trained on"):
        resolve_task(TaskSection(data="someone/rows", split="train_sft", eval_split="train_sft"))


def test_a_bundled_task_keeps_its_folder_and_takes_another_split() -> None:
    task = resolve_task(TaskSection(name="assistant", split="test", config="x"))
    assert (task.train.names, task.train.folder, task.train.config) == (("test",), "helpful-base", "x")


def test_the_hash_follows_what_rewards_may_read(tmp_path: Path) -> None:
    def sha256(**row: Any) -> str:
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps({"post": str(number), **row}) + "\n" for number in range(3)))
        return posts_sha256(resolve_task(TaskSection(data=str(path), eval_data=str(path))), "train")

    hashes = [sha256(), sha256(topic="a"), sha256(topic="b"), sha256(topic=["b"]), sha256(other="b")]
    assert len(set(hashes)) == 5
    assert sha256(topic="b") == hashes[2]
