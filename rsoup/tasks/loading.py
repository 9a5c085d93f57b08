"""Read the rows of a task and make prompts of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from rsoup.errors import DataError, did_you_mean, first_line
from rsoup.files import sha256_json
from rsoup.recipe import ResponseRule
from rsoup.tasks import Task
from rsoup.tasks.rows import Row, RowReader, UnusableRow
from rsoup.tasks.sources import EXTRA, is_remote, open_rows

MARKER = re.compile(r"<\|\w+\|>")
"""A chat token in a template."""

BROKEN = "\ufffd"
"""What bytes that are no whole character are decoded to."""

PATIENCE = 1000
"""Rows without the columns of the task after which the rest is not searched."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Example:
    """A row of a task: ``post`` is what rewards read, ``prompt`` what the model is given, as text and as tokens.

    A prompt may end with ``prefix``, the first ``prefix_tokens`` of the reference answer: rewards then read these and
    the completion as the answer, after the rule ``response``. The last three fields are the row's.
    """

    id: str
    post: str
    prompt: str
    tokens: tuple[int, ...]
    prefix: str = ""
    prefix_tokens: tuple[int, ...] = ()
    response: ResponseRule = "whole"
    reference: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """The examples of one split, and how many rows were left out for which reason."""

    rows: tuple[Example, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    without_reference: int = 0

    def with_room(self, new_tokens: int, context: int | None, setting: str) -> Examples:
        """Leave out prompts after which the model's context has no room for new tokens; DataError if all are.

        ``setting`` is the key of the recipe that decides their number.
        """
        fitting = [row for row in self.rows if context is None or len(row.tokens) + new_tokens <= context]
        reason = f"no room for {new_tokens} new tokens in the model's context of {context}"
        if not fitting:
            raise DataError(
                f"task: all {len(self.rows)} prompts leave {reason}.", f"Lower {setting}, or give shorter rows."
            )
        if len(fitting) == len(self.rows):
            return self
        dropped = {**self.dropped, reason: len(self.rows) - len(fitting)}
        bare = sum(not row.prefix_tokens for row in fitting) if self.without_reference else 0
        return Examples(tuple(fitting), dropped, bare)

    def remarks(self, what: str) -> list[str]:
        """Return what a user should know of the rows; ``what`` they are: training, held-out."""
        said = []
        if self.dropped:
            said.append(f"{sum(self.dropped.values())} {what} rows are left out: {_listed(self.dropped)}.")
        if self.without_reference:
            said.append(f"{self.without_reference} {what} rows have no reference answer for their prompt to end with.")
        return said


@dataclass(frozen=True)
class Rows:
    """The usable rows of one split; each has an id."""

    rows: tuple[Row, ...]
    dropped: Mapping[str, int]


def load_examples(task: Task, tokenizer: Any, split: Split, seed: int = 0) -> Examples:
    """Read the ``train`` or the ``test`` split of a task; the seed decides how much of a reference prompts end with."""
    _check_markers(task, tokenizer)
    found = read_rows(task, split)
    examples = [_example(task, tokenizer, row, seed) for row in found.rows]
    kept = tuple(example for example in examples if len(example.tokens) <= task.max_prompt_tokens)
    if not kept:
        raise DataError(
            f"{task.data}: no row of the {split} split is usable: all {len(examples)} prompts are longer than "
            f"{task.max_prompt_tokens} tokens.",
            "Raise task.max_prompt_tokens, or give shorter rows.",
        )
    dropped = Counter(found.dropped)
    if len(kept) < len(examples):
        dropped[f"prompt longer than {task.max_prompt_tokens} tokens"] = len(examples) - len(kept)
    bare = sum(not example.prefix_tokens for example in kept) if task.prefix else 0
    return Examples(kept, dropped, bare)


def _check_markers(task: Task, tokenizer: Any) -> None:
    """Refuse a template with chat tokens that the model does not have: it would read them as text."""
    vocabulary = tokenizer.get_vocab()
    for marker in MARKER.findall(task.template):
        if marker not in vocabulary:
            raise DataError(
                f"task.template: the model's tokenizer does not know {marker}.",
                "Set task.template to the prompt alone, and task.chat to true for the model's own chat format.",
            )


def posts_sha256(task: Task, split: Split) -> str:
    """Return a hash of the rows a split is made of."""
    rows = [[row.id, row.post, row.reference if task.prefix else None] for row in _read_source(task, split).rows]
    return sha256_json([task.eval_data is None and task.eval_share, *rows])


def read_rows(task: Task, split: Split) -> Rows:
    """Return the usable rows of a split; without held-out data, both splits come from the training rows."""
    found = _read_source(task, split)
    if task.eval_data is not None:
        return found
    held_out = max(1, round(len(found.rows) * task.eval_share))
    if held_out >= len(found.rows):
        left_out = f"; left out: {_listed(found.dropped)}" if found.dropped else ""
        raise DataError(
            f"{task.data}: too few usable rows ({len(found.rows)}) to hold some out{left_out}.",
            "Add rows, or give task.eval_data.",
        )
    return replace(found, rows=found.rows[:-held_out] if split == "train" else found.rows[-held_out:])


def _read_source(task: Task, split: Split) -> Rows:
    """Return the rows that a split is made of."""
    if split == "test" and task.eval_data is not None:
        return _read(task, task.eval_data, "test")
    return _read(task, task.data, "train")


def _read(task: Task, source: str, split: Split) -> Rows:
    """Return the rows of a source; those of the hub are read once, since a run asks for them several times."""
    return _read_once(task, source, split) if is_remote(source) else _read_now(task, source, split)


@cache
def _read_once(task: Task, source: str, split: Split) -> Rows:
    return _read_now(task, source, split)


def _read_now(task: Task, source: str, split: Split) -> Rows:
    """Read the rows of a source; those that cannot be used are counted by the reason."""
    part = task.train if split == "train" else task.test
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    columns: dict[str, None] = {}
    seen: dict[str, set[str]] = {key: set() for key in ("id", *task.unique)}
    reader: RowReader | None = None
    for number, raw in enumerate(_mappings(source, open_rows(source, part)), start=1):
        columns.update((str(name), None) for name in raw if name != EXTRA)
        try:
            _check_cells(raw)
            reader = reader or _reader(task, raw)
            row = _read_row(reader, raw)
            row = replace(row, id=str(number) if row.id is None else str(row.id), columns=raw)
            _check_unique(row, seen)
            rows.append(row)
        except UnusableRow as problem:
            dropped[str(problem)] += 1
        if len(rows) == part.limit or (reader is None and number == PATIENCE):
            break
    _check_found(task, source, rows, dropped, list(columns))
    return Rows(tuple(rows), dropped)


def _check_found(
    task: Task, source: str, rows: Sequence[Row], dropped: Mapping[str, int], columns: Sequence[str]
) -> None:
    """Raise DataError if no row of a source is usable, or none has the column of reference answers."""
    if not columns:
        raise DataError(f"{source}: has no rows.", "Give a data set with at least one row.")
    wanted = [("reference", task.reference)]
    if not rows and all("no column" in reason for reason in dropped):
        wanted = [("column", task.column)]
    if task.id != "id":
        wanted.append(("id", task.id))
    for key, column in wanted:
        if column is not None and column not in columns:
            what = f", and not the shape that the task {task.name} reads" if task.read and key == "column" else ""
            raise DataError(
                f"{source}: has no column {column!r}{what}.", f"Set task.{key}. {did_you_mean(column, columns)}"
            )
    if not rows:
        raise DataError(
            f"{source}: none of its rows is usable: {_listed(dropped)}.",
            "Give a data set with at least one row that the task can use.",
        )


def _mappings(source: str, rows: Any) -> Iterator[Mapping[str, Any]]:
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{source}, row {number}: is not a mapping of columns.", "Write one JSON object per line."
                )
            yield row
    except ValueError as problem:  # of datasets, whose files do not agree on their columns
        raise DataError(
            f"{source}: cannot be read after row {number}: {first_line(problem)}.",
            "Give a folder whose files are rows with the same columns.",
        ) from problem


def _read_row(reader: RowReader, raw: Mapping[str, Any]) -> Row:
    try:
        row = reader(raw)
        f"{row.id}{row.post}{row.reference}".encode()  # fails on half of a surrogate pair, as tokenizers would
        return row
    except UnicodeEncodeError as problem:
        raise UnusableRow("text that is not Unicode") from problem
    except (KeyError, TypeError, AttributeError, IndexError) as problem:
        missing = problem.args[0] if isinstance(problem, KeyError) else None
        raise UnusableRow(f"no column {missing!r}" if missing else "another shape than the rest") from problem


def _check_cells(raw: Mapping[str, Any]) -> None:
    """Leave out a row of a CSV file with more cells than the header: a comma without quotes cut its text."""
    if EXTRA in raw:
        raise UnusableRow("more cells than columns")


def _check_unique(row: Row, seen: Mapping[str, set[str]]) -> None:
    for key, values in seen.items():
        if getattr(row, key) in values:
            raise UnusableRow(f"repeated {key}")
    for key, values in seen.items():
        values.add(getattr(row, key))


def _reader(task: Task, row: Mapping[str, Any]) -> RowReader:
    """Return what reads rows like this one: the data set's reader, or that of columns; UnusableRow if neither can."""
    missing = task.column
    if task.read is not None:
        try:
            task.read(row)
        except KeyError as problem:
            missing = str(problem.args[0])
        except (UnusableRow, TypeError, AttributeError, IndexError):
            return task.read
        else:
            return task.read
    if task.column not in row:
        raise UnusableRow(f"no column {missing!r}")
    return lambda other: _read_columns(task, other)


def _read_columns(task: Task, row: Mapping[str, Any]) -> Row:
    """Read a row by the names of its columns."""
    text, reference = row[task.column], row.get(task.reference) if task.reference else None
    if not isinstance(text, str) or not text.strip():
        raise UnusableRow("no text")
    identifier = row.get(task.id)
    identifier = None if identifier in (None, "") else str(identifier)
    if task.post is not None:  # the same in every row; what differs is the answer
        return Row(identifier, task.post, text.strip())
    return Row(identifier, text.strip(), reference.strip() or None if isinstance(reference, str) else None)


def _listed(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))


def _example(task: Task, tokenizer: Any, row: Row, seed: int) -> Example:
    assert row.id is not None
    prompt = task.template.replace("{post}", row.post)
    if task.chat:
        if tokenizer.chat_template is None:
            raise DataError(
                "task.chat is on, but the model's tokenizer has no chat template.", "Set task.chat to false."
            )
        turn = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    tokens, prefix = _encode(task, tokenizer, prompt), list[int]()
    if task.prefix is not None and row.reference:
        reference = row.reference if task.response == "whole" else row.reference.replace(".", ",")
        count = draw_count(*task.prefix, seed, row.id)
        tokens, prefix = _continued(tokens, _encode(task, tokenizer, prompt + reference), count, tokenizer)
    text = tokenizer.decode(prefix).strip() if prefix else ""
    return Example(
        id=row.id,
        post=row.post,
        prompt=prompt + text,
        tokens=tuple(tokens),
        prefix=text,
        prefix_tokens=tuple(prefix),
        response=task.response,
        reference=row.reference,
        messages=row.messages,
        columns=row.columns,
    )


def _encode(task: Task, tokenizer: Any, prompt: str) -> list[int]:
    tokens: list[int] = tokenizer(prompt, add_special_tokens=not task.chat, verbose=False)["input_ids"]
    if tokens and tokens[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        tokens = tokens[:-1]  # some tokenizers end every text, but a prompt is to be continued
    return tokens


def draw_count(least: int, most: int, seed: int, identifier: str) -> int:
    """Return a number from ``least..most`` that depends on the seed and the row's id, and on nothing else."""
    digest = hashlib.sha256(f"{seed}/prefix/{identifier}".encode()).digest()
    return least + int.from_bytes(digest[:8], "little") % (most - least + 1)


def _continued(prompt: list[int], whole: list[int], count: int, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt continued by ``count`` tokens of its reference answer, and these tokens.

    ``whole`` are the tokens of both texts together: where they meet, a space may belong to the answer's first word.
    """
    shared = next((i for i, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), None)
    shared = min(len(prompt), len(whole)) if shared is None else shared
    end = min(shared + count, len(whole))
    while end < len(whole) and tokenizer.decode(whole[shared:end]).endswith(BROKEN):
        end += 1  # not within a character
    return whole[:end], whole[shared:end]
