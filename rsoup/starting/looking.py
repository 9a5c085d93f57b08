"""A look at the rows that a recipe is to be written for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsoup.errors import DataError
from rsoup.recipe import TaskSection
from rsoup.tasks import TASKS, resolve_task
from rsoup.tasks.reading import Rows, listed, read_rows

References = Literal["none", "numbers", "letters", "words", "texts"]
"""What reference answers are: numbers, single letters, a few words, or longer texts."""

NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?", re.IGNORECASE)
ENOUGH = 30
"""Held-out rows from which on a mean says something."""
FEWEST = 8
"""Held-out rows up to which a mean says nothing."""
GSM8K = "#### "
"""What precedes the answer in references that show their work."""
FEW = 5
"""Words up to which a reference can be asked for as it is."""


@dataclass(frozen=True)
class Look:
    """What rows are: the section of the task that reads them, how many there are, whether they are conversations.

    ``words`` is the median number of words of reference answers, 0 if there are none.
    """

    task: TaskSection
    source: str
    training: int
    held_out: int
    said: str
    talks: bool
    references: References
    words: int
    first: str
    dropped: Mapping[str, int]
    columns: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What a user should know of the rows."""
        said = [f"{self.training + self.held_out} rows: {self.training} to train on, {self.held_out} held out."]
        said.append(self.said)
        if self.dropped:
            said.append(f"{sum(self.dropped.values())} rows are left out: {listed(self.dropped)}.")
        return said


def look(source: str, column: str | None = None, reference: str | None = None, split: str | None = None) -> Look:
    """Read the rows of a file, a folder, a hub id or a bundled task; DataError says what of them cannot be used."""
    if source in TASKS and not Path(source).exists():
        section = TaskSection(name=source)
    else:
        section = TaskSection(data=source, column=column, reference=reference, split=split)
    task = resolve_task(section)
    try:
        train, test = read_rows(task, "train"), read_rows(task, "test")
    except DataError as problem:
        raise DataError(problem.message, _with_flags(problem.hint)) from problem
    answers = [row.reference for row in train.rows if row.reference]
    talks = train.rows[0].messages is not None
    return Look(
        task=section,
        source=source,
        training=len(train.rows),
        held_out=len(test.rows),
        said=train.said or _usual(section, train),
        talks=talks,
        references=kind_of(answers) if len(answers) * 2 >= len(train.rows) else "none",
        words=median_words(answers),
        first=train.rows[0].post,
        dropped=train.dropped,
        columns=tuple(map(str, train.rows[0].columns)),
        repeats=test.repeats,
    )


def remarks_on(seen: Look) -> list[str]:
    """Return what a look finds that will matter later."""
    said = list(seen.repeats)
    if seen.held_out < FEWEST:
        rows = "1 held-out row tells" if seen.held_out == 1 else f"{seen.held_out} held-out rows tell"
        said.append(f"warning: {rows} nothing but that all runs: give {ENOUGH} or more to compare models.")
    elif seen.held_out < ENOUGH:
        said.append(f"{seen.held_out} held-out rows tell little: means of fewer than {ENOUGH} are within wide errors.")
    if seen.references == "none":
        named = f"; --reference NAME takes a column ({', '.join(seen.columns)})" if len(seen.columns) > 1 else ""
        said.append(
            f"Without reference answers, rewards that compare with them (math, exact, ...) do not apply{named}."
        )
    return said


def kind_of(answers: Sequence[str]) -> References:
    """Return what most of some reference answers are."""
    if not answers:
        return "none"
    kinds = Counter(_kind(answer.rpartition(GSM8K)[2].strip()) for answer in answers)
    kind, count = kinds.most_common(1)[0]
    return kind if count * 10 >= len(answers) * 9 else "texts"


def _kind(answer: str) -> References:
    if NUMBER.fullmatch(answer.replace("$", "")):
        return "numbers"
    if re.fullmatch(r"\(?[A-J]\)?\.?", answer):
        return "letters"
    return "words" if len(answer.split()) <= FEW else "texts"


def median_words(answers: Sequence[str]) -> int:
    """Return the median number of words of some texts, 0 if there are none."""
    counts = sorted(len(answer.split()) for answer in answers)
    return counts[len(counts) // 2] if counts else 0


def _usual(section: TaskSection, rows: Rows) -> str:
    """Return how rows are read of which nothing else is said."""
    answers = "they have reference answers" if rows.rows[0].reference else "they have no reference answer"
    return f"Rows are texts ({section.column or 'post'}); {answers}."


def _with_flags(hint: str) -> str:
    """Return a hint with the flags of the command in the place of the keys of a recipe that is not there yet."""
    for key, flag in {"Set task.column.": "Name it: --column NAME.", "task.split": "--split"}.items():
        hint = hint.replace(key, flag)
    return hint
