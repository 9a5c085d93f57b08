"""Read the rows of a task and make prompts of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rsoup.errors import DataError, did_you_mean, first_line
from rsoup.files import sha256_json
from rsoup.tasks import Task

MARKER = re.compile(r"<\|\w+\|>")
"""A chat token in a template."""


@dataclass(frozen=True)
class Example:
    """A row of a task: ``post`` is what rewards read, ``prompt`` what the model is given, as text and as tokens."""

    id: str
    post: str
    prompt: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """The rows of one split, and how many were left out because their prompt is too long."""

    rows: tuple[Example, ...]
    too_long: int = 0

    @property
    def sha256(self) -> str:
        """Hash of what the model is given."""
        return sha256_json([[row.id, row.prompt] for row in self.rows])


def load_examples(task: Task, tokenizer: Any, split: str) -> Examples:
    """Read the ``train`` or the ``test`` split of a task."""
    _check_markers(task, tokenizer)
    rows = _read_split(task, split)
    if task.eval_data is None:
        held_out = max(1, round(len(rows) * task.eval_share))
        if held_out >= len(rows):
            raise DataError(
                f"{task.data}: too few rows ({len(rows)}) to hold some out.", "Add rows, or give task.eval_data."
            )
        rows = rows[:-held_out] if split == "train" else rows[-held_out:]
    examples = [_example(task, tokenizer, identifier, post) for identifier, post in rows]
    kept = tuple(example for example in examples if len(example.tokens) <= task.max_prompt_tokens)
    if not kept:
        raise DataError(
            f"{task.data}: no row of the {split} split is usable: all {len(examples)} prompts are longer than "
            f"{task.max_prompt_tokens} tokens.",
            "Raise task.max_prompt_tokens, or give shorter rows.",
        )
    return Examples(kept, too_long=len(examples) - len(kept))


def _check_markers(task: Task, tokenizer: Any) -> None:
    """Refuse a template with chat tokens that the model does not have: it would read them as text."""
    vocabulary = tokenizer.get_vocab()
    for marker in MARKER.findall(task.template):
        if marker not in vocabulary:
            raise DataError(
                f"task.template: the model's tokenizer does not know {marker}.",
                "Set task.template to the prompt alone, and task.chat to true for the model's own chat format.",
            )


def posts_sha256(task: Task, split: str) -> str:
    """Return a hash of the rows a split is made of."""
    return sha256_json([task.eval_data is None and task.eval_share, *_read_split(task, split)])


def _read_split(task: Task, split: str) -> list[tuple[str, str]]:
    """Read the rows that a split is made of: without held-out data, both come from the training rows."""
    if split == "test" and task.eval_data is not None:
        return list(read_posts(task.eval_data, task.column, "test"))
    return list(read_posts(task.data, task.column, "train"))


def _example(task: Task, tokenizer: Any, identifier: str, post: str) -> Example:
    prompt = task.template.replace("{post}", post)
    if task.chat:
        if tokenizer.chat_template is None:
            raise DataError(
                "task.chat is on, but the model's tokenizer has no chat template.", "Set task.chat to false."
            )
        turn = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(prompt, add_special_tokens=not task.chat)["input_ids"]
    if tokens and tokens[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        tokens = tokens[:-1]  # some tokenizers end every text, but a prompt is to be continued
    return Example(id=identifier, post=post, prompt=prompt, tokens=tuple(tokens))


def read_posts(source: str, column: str, split: str) -> Iterator[tuple[str, str]]:
    """Yield (id, post) of each row; the id is the row's ``id``, else its number."""
    rows = _open(source, split)
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{source}, row {number}: is not a mapping of columns.", "Write one JSON object per line.")
        if column not in row:
            raise DataError(
                f"{source}, row {number}: has no column {column!r}.",
                f"Set task.column. {did_you_mean(column, [str(key) for key in row])}",
            )
        post = row[column]
        if not isinstance(post, str) or not post.strip():
            raise DataError(
                f"{source}, row {number}: the column {column!r} holds no text.", "Fill it in, or remove the row."
            )
        identifier = str(number) if row.get("id") in (None, "") else str(row["id"])
        if identifier in seen:
            raise DataError(
                f"{source}, row {number}: has the id {identifier!r} of row {seen[identifier]}.",
                "Give every row an id of its own, or remove the id column.",
            )
        seen[identifier] = number
        yield identifier, post.strip()
    if not seen:
        raise DataError(f"{source}: has no rows.", "Give a data set with at least one row.")


def _open(source: str, split: str) -> Iterable[Any]:
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in READERS:
            raise DataError(
                f"{source}: a {path.suffix or 'nameless'} file is not data that rsoup reads.",
                f"Give one of: {', '.join(READERS)}, a folder saved by datasets, or a hub id.",
            )
        return READERS[path.suffix](path)
    if path.is_dir():
        return _read_saved(path, split)
    if path.exists() or path.suffix in READERS or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise DataError(f"{source}: there is no such data file.", "Check the path (task.data, task.eval_data).")
    return _read_hub(source, split)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """Open a text file, with or without a byte order mark."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}).", "Check the rights of the file.") from problem
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: is not UTF-8 text ({problem.reason}).", "Save it as UTF-8.") from problem


def _read_jsonl(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as problem:
                    raise DataError(
                        f"{path}, line {number}: is not JSON ({problem}).", "Write one JSON object per line."
                    ) from problem


def _read_csv(path: Path) -> Iterator[Any]:
    with _text(path) as file:
        rows = csv.DictReader(file)
        try:
            yield from rows
        except csv.Error as problem:
            raise DataError(f"{path}, line {rows.line_num}: is not CSV ({problem}).", "Mend the line.") from problem


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as problem:
        raise DataError(f"{path}: is not a Parquet file ({problem}).", "Write it again.") from problem


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_saved(path: Path, split: str) -> Iterable[Any]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as problem:
        raise DataError(
            f"{path}: is not a folder saved by datasets.", "Save it with Dataset.save_to_disk."
        ) from problem
    return _split(saved, split, str(path)) if isinstance(saved, DatasetDict) else saved


def _read_hub(source: str, split: str) -> Iterable[Any]:
    from datasets import load_dataset

    try:
        return _split(load_dataset(source), split, source)
    except (OSError, ValueError) as problem:
        reason = first_line(problem)
        raise DataError(
            f"{source}: the data set cannot be loaded: {reason}", "Check the path or hub id, and the network."
        ) from problem


def _split(splits: Any, split: str, source: str) -> Iterable[Any]:
    names = {"train": ("train",), "test": ("test", "validation")}[split]
    for name in names:
        if name in splits:
            rows: Iterable[Any] = splits[name]
            return rows
    raise DataError(
        f"{source}: has no split {names[0]!r}, only {', '.join(splits)}.",
        "Give files for task.data and task.eval_data.",
    )
