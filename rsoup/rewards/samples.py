"""What a reward may read of a completion: its text, and the row that it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsoup.files import sha256_json
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import opens_thought
from rsoup.tasks.rows import Row


@dataclass(frozen=True)
class Sample:
    """A completion and its row: ``post`` without any template, ``completion`` after the task's response rule.

    ``messages`` is the prompt of a conversational task, as (role, content) mappings; ``columns`` are the row's own,
    under the names of the data; ``tokens`` are the completion's in the policy's vocabulary. ``thinking``: the prompt
    opens a thought, which the completion goes on with.
    """

    post: str
    completion: str
    tokens: tuple[int, ...] = ()
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, Any], ...] | None = None
    thinking: bool = False

    def key(self) -> str:
        """Return a short hash of all that a reward may read."""
        row = repr([sorted(self.columns.items()), self.messages, self.tokens, *["thinking"] * self.thinking])
        return sha256_json([self.post, self.completion, self.reference, row])[:24]


def sample_of(row: Row | Example, completion: str, tokens: Sequence[int] = ()) -> Sample:
    """Return what rewards read of an answer to a row; ``tokens`` are those that were generated."""
    thinking = isinstance(row, Example) and row.response != "after_think" and opens_thought(row)
    return Sample(row.post, completion, tuple(tokens), row.reference, row.columns, row.messages, thinking)


def plain_samples(posts: Iterable[str], completions: Iterable[str]) -> list[Sample]:
    """Return texts as samples of rows that have nothing beside the post."""
    return [Sample(post, completion) for post, completion in zip(posts, completions, strict=True)]
