"""Read the rows of a task: those of a split that can be used, and why others cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, compress, islice
from typing import Any, Literal

from rsoup.errors import DataError, RsoupError, did_you_mean, first_line, see
from rsoup.files import sha256_json
from rsoup.tasks import Task
from rsoup.tasks.first_rows import LOOK, completed
from rsoup.tasks.forms import EXTRA
from rsoup.tasks.media import check_media, media_of
from rsoup.tasks.plain import plain
from rsoup.tasks.rows import Row, RowReader, UnusableRow
from rsoup.tasks.shapes import MISSING, SYSTEMS, Shape, answer_of, lookup, recognise, spelled_out
from rsoup.tasks.sources import is_remote, open_rows
from rsoup.tasks.turns import OTHER_ROLES, spoken, with_system

PATIENCE = 1000
"""Rows of no shape that the task reads after which the rest is not searched."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Rows:
    """The usable rows of one split, each with an id; how many others there are by reason; how rows were read.

    ``repeats`` says how many held-out rows ask what is trained on, or what another of them asks.
    """

    rows: tuple[Row, ...]
    dropped: Mapping[str, int]
    said: str | None = None
    repeats: tuple[str, ...] = ()


def posts_sha256(task: Task, split: Split) -> str:
    """Return a hash of the rows a split is made of: of all that prompts and rewards may read."""
    found = _read_source(task, split).rows
    parting: Any = task.eval_data is None and task.eval_share
    if parting and len({_asked(task, row) for row in found}) < len(found):
        parting = {"of the texts": parting}
    return sha256_json([parting, *(_content(task, row) for row in found)])


def _content(task: Task, row: Row) -> list[Any]:
    """Return what a row holds; what it has beside the id and the post comes last, if there is any."""
    known = (row.id, row.post)
    rest = {name: value for name, value in row.columns.items() if value not in known}
    beside = [[row.reference, (row.messages or ())[:-1], rest]] if rest or row.messages else []
    return [row.id, row.post, row.reference if task.prefix else None, *beside]


def read_rows(task: Task, split: Split) -> Rows:
    """Return the usable rows of a split; without held-out data, both splits come from the training rows.

    Rows that ask the same then fall into one split, since what is trained on is not held out.
    """
    found = _read_source(task, split)
    if task.eval_data is None:
        train, test = _parted(task, found)
    elif split == "train":
        train, test = found.rows, ()
    else:
        train, test = () if is_remote(task.data) else _read_source(task, "train").rows, found.rows
    if split == "train":
        return replace(found, rows=train)
    return replace(found, rows=test, repeats=_repeats(task, train, test))


def _parted(task: Task, found: Rows) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Return the rows to train on and the last ones, which are held out: the last texts, with all that ask them."""
    texts = list(dict.fromkeys(_asked(task, row) for row in found.rows))
    held_out = max(1, round(len(texts) * task.eval_share))
    if held_out < len(texts):
        last = set(texts[-held_out:])
        places = [_asked(task, row) in last for row in found.rows]
        train, test = (tuple(compress(found.rows, own)) for own in ([not place for place in places], places))
        return train, test
    held_out = max(1, round(len(found.rows) * task.eval_share))  # all ask one thing, or nearly
    if held_out >= len(found.rows):
        left_out = f"; left out: {listed(found.dropped)}" if found.dropped else ""
        raise DataError(
            f"{task.data}: too few usable rows ({len(found.rows)}) to hold some out{left_out}.",
            "Add rows, or give task.eval_data.",
        )
    return found.rows[:-held_out], found.rows[-held_out:]


def _asked(task: Task, row: Row) -> str:
    """Return what tells apart what rows ask the model: their turns, and the answer that prompts end with a part of."""
    return json.dumps([row.post, row.messages, row.reference if task.prefix else None], sort_keys=True, default=str)


def _repeats(task: Task, train: Sequence[Row], test: Sequence[Row]) -> tuple[str, ...]:
    """Return what is to be said of held-out rows that ask what a training row, or another of them, asks."""
    asked = [_asked(task, row) for row in test]
    trained = {_asked(task, row) for row in train}
    known = sum(text in trained for text in asked)
    again = len(asked) - len(set(asked))
    said = []
    if known:
        said.append(
            f"warning: {known} of {len(asked)} held-out rows ask what a training row asks: scores on them do not tell "
            "what a model makes of new ones."
        )
    if again:
        said.append(
            f"{again} of {len(asked)} held-out rows repeat what another one asks: errors and intervals, which take "
            "them for different ones, come out too small."
        )
    return tuple(said)


def check_alike(task: Task, held_out: Rows) -> None:
    """Raise DataError if held-out rows of another source are texts where the training rows are conversations."""
    if task.chat is not None or task.eval_data in (None, task.data) or is_remote(task.data):
        return
    first = _read_now(replace(task, train=replace(task.train, limit=1)), task.data, "train").rows[0]
    if (first.messages is None) != (held_out.rows[0].messages is None):
        one, other = ("texts", "conversations") if first.messages is None else ("conversations", "texts")
        raise DataError(
            f"{task.eval_data}: holds {other}, and the training rows are {one}.",
            "Give held-out rows like the training rows, or set task.chat to true for both.",
        )


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


@dataclass(frozen=True)
class _Reading:
    """What reads the rows of a source, and what is said of it, given the share of rows that have a reference."""

    read: RowReader
    said: Callable[[float], str | None] = lambda _: None


def _read_now(task: Task, source: str, split: Split) -> Rows:
    """Read the rows of a source; those that cannot be used are counted by the reason."""
    part = task.train if split == "train" else task.test
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    columns: dict[str, None] = {}
    there = {name: False for name in (task.column, task.reference, task.id) if name is not None}
    seen: dict[str, set[str]] = {key: set() for key in ("id", *task.unique)}
    reading: _Reading | None = None
    found = _mappings(source, open_rows(source, part))
    first = list(islice(found, LOOK))
    for number, raw in enumerate(chain(first, found), start=1):
        if not columns.keys() >= raw.keys():
            columns.update((str(name), None) for name in raw if name != EXTRA)
        for name in [name for name, found in there.items() if not found]:
            there[name] = lookup(raw, name) is not MISSING
        try:
            _check_cells(raw)
            reading = reading or _reading(task, raw, [other for other in first if EXTRA not in other])
            row = _read_row(reading.read, raw)
            row = replace(row, id=str(number) if row.id is None else str(row.id), columns=plain(raw))
            _check_kind(row, rows)
            _check_unique(row, seen)
            rows.append(row)
        except UnusableRow as problem:
            dropped[str(problem)] += 1
        if len(rows) == part.limit or (reading is None and number == PATIENCE):
            break
    _check_found(task, source, rows, dropped, list(columns), there, recognised=reading is not None)
    spelled = spelled_out(rows[0].reference, rows[0].columns)
    answered = sum(row.reference is not None for row in rows) / len(rows)
    said = [line for line in (reading.said(answered) if reading else None, spelled) if line]
    return Rows(tuple(rows), dropped, " ".join(said) or None)


def _check_found(
    task: Task,
    source: str,
    rows: Sequence[Row],
    dropped: Mapping[str, int],
    columns: Sequence[str],
    there: Mapping[str, bool],
    *,
    recognised: bool,
) -> None:
    """Raise DataError if no row of a source is usable, or none has a column that the recipe names."""
    if not columns:
        raise DataError(f"{source}: has no rows.", "Give a data set with at least one row.")
    if not rows and not recognised:
        _refuse_shape(task, source, dropped, columns, there)
    for key, column in (("reference", task.reference), ("id", task.id if task.id != "id" else None)):
        if column is not None and not there[column]:
            raise DataError(f"{source}: has no column {column!r}.", f"Set task.{key}. {did_you_mean(column, columns)}")
    if not rows:
        raise DataError(
            f"{source}: none of its rows is usable: {listed(dropped)}.",
            _mending(max(dropped, key=dropped.__getitem__)) + see("no-row-is-usable"),
        )


def _mending(reason: str) -> str:
    """Return what to do about rows that were left out for a reason."""
    if "role" in reason:
        return f"Call the roles system, user, assistant and tool ({', '.join(OTHER_ROLES)} are read too)."
    if reason == "no user's turn":
        return "Give conversations in which the user speaks: a prompt ends with the user's turn."
    if reason.endswith("in the place of text"):
        return "Set task.column. It names a column of texts or conversations."
    return "Give a data set with at least one row that the task can use."


def _refuse_shape(
    task: Task, source: str, dropped: Mapping[str, int], columns: Sequence[str], there: Mapping[str, bool]
) -> None:
    """Raise DataError if the rows of a source lack the column that is asked, or have no shape that is known."""
    if task.column is not None and there[task.column]:
        return
    if task.read is None and task.column is None and NO_SHAPE not in dropped:
        return
    what = ", and no other shape that rsoup knows (messages, prompt, ...)" if task.column is None else ""
    what = f", and not the shape that the task {task.name} reads" if task.read else what
    raise DataError(
        f"{source}: has no column {task.column or 'post'!r}{what}.",
        f"Set task.column. {did_you_mean(task.column or 'post', columns)}{see('no-such-column')}",
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
    except RsoupError:
        raise
    except Exception as problem:  # whatever datasets raises, of files that do not agree on their columns, for one
        raise DataError(
            f"{source}: cannot be read after row {number}: {first_line(problem)}.",
            "Give files of rows with the same columns, in a form that rsoup reads by itself: JSONL, CSV, Parquet.",
        ) from problem


def _read_row(reader: RowReader, raw: Mapping[str, Any]) -> Row:
    try:
        row = reader(raw)
        talk = "".join(turn["content"] for turn in row.messages or ())
        f"{row.id}{row.post}{row.reference}{talk}".encode()  # fails on half of a surrogate pair, as tokenizers would
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


def _check_kind(row: Row, rows: Sequence[Row]) -> None:
    """Leave out a text among conversations and the reverse: their prompts would be made in different ways."""
    if rows and (row.messages is None) != (rows[0].messages is None):
        talks = row.messages is not None
        raise UnusableRow("a conversation among texts" if talks else "a text among conversations")


def _check_unique(row: Row, seen: Mapping[str, set[str]]) -> None:
    for key, values in seen.items():
        if getattr(row, key) in values:
            raise UnusableRow(f"repeated {key}")
    for key, values in seen.items():
        values.add(getattr(row, key))


NO_SHAPE = "no shape that is known"


def _reading(task: Task, row: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> _Reading:
    """Return what reads rows like these: the data set's reader, or that of their shape; UnusableRow if none can."""
    missing = task.column
    if task.read is not None:
        try:
            task.read(row)
        except KeyError as problem:
            missing = str(problem.args[0])
        except (UnusableRow, TypeError, AttributeError, IndexError):
            return _Reading(task.read)
        else:
            return _Reading(task.read)
    whole = completed(row, others)
    shape = recognise(whole, task.column)
    if shape is None:
        raise UnusableRow(f"no column {missing!r}" if missing else NO_SHAPE)
    unread = [media] if (media := media_of(whole)) else []
    if shape.system and not shape.talks and task.chat is False:
        unread.append(shape.system)
        shape = replace(shape, system=None)
    lost = [f"Prompts do not hold the column {name}." for name in unread]

    def said(answered: float) -> str | None:
        lines = (shape.said(task.column, task.reference, answered), *lost)
        return " ".join(line for line in lines if line) or None

    return _Reading(lambda other: _read_shape(task, shape, other), said)


def _read_shape(task: Task, shape: Shape, row: Mapping[str, Any]) -> Row:
    """Read a row of a known shape, with what the recipe says of its columns."""
    question = shape.read(row)
    prompt, reference = question.prompt, question.reference
    check_media(prompt, row, named=task.column is not None)
    if task.reference is not None:
        given = lookup(row, task.reference)
        reference = None if given is MISSING else answer_of(given)
    identifier = lookup(row, task.id)
    identifier = None if identifier in (None, "", MISSING) else str(identifier)
    if task.post is not None:  # the same in every row; what differs is the answer
        if not isinstance(prompt, str):
            raise UnusableRow("a conversation in the place of an answer")
        return Row(identifier, task.post, prompt)
    if isinstance(prompt, str) and task.chat:
        prompt = spoken(prompt) or prompt
    if isinstance(prompt, str):
        if shape.system is None:
            _check_system(task, row)
            return Row(identifier, prompt, reference)
        prompt = ({"role": "user", "content": prompt},)
    own = row.get(shape.system) if shape.system else None
    messages = with_system(prompt, own if isinstance(own, str) and own.strip() else None, replace=False)
    messages = with_system(messages, task.system, replace=True)
    return Row(identifier, messages[-1]["content"].strip(), reference and reference.strip(), messages)


def _check_system(task: Task, row: Mapping[str, Any]) -> None:
    """Leave out a row whose system message would be lost, since rows are read as texts: the first have none."""
    own = next((name for name in SYSTEMS if isinstance(row.get(name), str) and row[name].strip()), None)
    if own is not None and task.system is None and task.chat is not False:
        raise UnusableRow(f"a system message ({own}), which the first {LOOK} rows have not")


def listed(dropped: Mapping[str, int]) -> str:
    """Return reasons with how many rows each left out."""
    return ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
