"""Read the rows of a task and make prompts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rsoup.errors import DataError, see
from rsoup.tasks import Task
from rsoup.tasks.prompts import MARKER, Example, make_examples
from rsoup.tasks.reading import Rows, Split, check_alike, listed, posts_sha256, read_rows

__all__ = [
    "MARKER",
    "Example",
    "Examples",
    "Rows",
    "Split",
    "load_examples",
    "posts_sha256",
    "read_rows",
]


@dataclass(frozen=True)
class Examples:
    """The examples of one split, how many rows were left out for which reason, how rows were read, and repeats."""

    rows: tuple[Example, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    without_reference: int = 0
    said: str | None = None
    repeats: tuple[str, ...] = ()

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
        return replace(self, rows=tuple(fitting), dropped=dropped, without_reference=bare)

    def remarks(self, what: str) -> list[str]:
        """Return what a user should know of the rows; ``what`` they are: training, held-out."""
        said = [self.said] if self.said else []
        if self.dropped:
            said.append(f"{sum(self.dropped.values())} {what} rows are left out: {listed(self.dropped)}.")
        if self.without_reference:
            said.append(f"{self.without_reference} {what} rows have no reference answer for their prompt to end with.")
        return [*said, *self.repeats]


def _rows(task: Task, split: Split) -> Rows:
    found = read_rows(task, split)
    if split == "test":
        check_alike(task, found)
    return found


def load_examples(task: Task, tokenizer: Any, split: Split, seed: int = 0) -> Examples:
    """Read the ``train`` or the ``test`` split of a task; the seed decides how much of a reference prompts end with."""
    found = _rows(task, split)
    examples, refused = make_examples(task, tokenizer, found.rows, seed)
    kept = tuple(example for example in examples if len(example.tokens) <= task.max_prompt_tokens)
    if not kept:
        raise DataError(
            f"{task.data}: no row of the {split} split is usable: all {len(examples)} prompts are longer than "
            f"{task.max_prompt_tokens} tokens.",
            "Raise task.max_prompt_tokens, or give shorter rows." + see("no-row-is-usable"),
        )
    dropped = Counter(found.dropped) + refused
    if len(kept) < len(examples):
        dropped[f"prompt longer than {task.max_prompt_tokens} tokens"] = len(examples) - len(kept)
    bare = sum(not example.prefix_tokens for example in kept) if task.prefix else 0
    return Examples(kept, dropped, bare, found.said, found.repeats)
