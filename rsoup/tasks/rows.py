"""Rows as tasks use them, and the functions that read them from the data sets of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """What a task takes from a row: ``post`` is asked about and read by rewards, ``reference`` answers it.

    ``messages`` is the prompt of a conversational row, as (role, content) mappings; ``columns`` is the whole row.
    """

    id: str | None
    post: str
    reference: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = field(default=None, repr=False)
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)


class UnusableRow(Exception):  # noqa: N818 - a row is no error
    """A row that a task leaves out; the text is the reason under which it is counted."""


RowReader = Callable[[Mapping[str, Any]], Row]
"""Reads a row of a data set; UnusableRow if the task leaves it out, KeyError if the data has another shape."""

REUTERS = "(Reuters) -"
REVIEW = "Generate a movie review."


def one_line(text: Any) -> str:
    """Return a text on one line, UnusableRow if there is none."""
    if not isinstance(text, str) or not text.strip():
        raise UnusableRow("no text")
    return text.replace("\n", " ").strip()


def _optional(text: Any) -> str | None:
    return text.replace("\n", " ").strip() or None if isinstance(text, str) else None


def _identifier(value: Any) -> str:
    if value in (None, ""):
        raise UnusableRow("no id")
    return str(value)


def _texts(value: Any) -> list[Any]:
    """Return the texts of a column of records, which is a list of mappings or a mapping of lists."""
    if isinstance(value, Mapping):
        value = value.get("text")
        return list(value) if isinstance(value, (list, tuple)) else []
    return [record.get("text") for record in value or () if isinstance(record, Mapping)]


def _check_length(text: str, above: int, below: float) -> None:
    if len(text) <= above:
        raise UnusableRow(f"text of {above} characters or fewer")
    if len(text) >= below:
        raise UnusableRow(f"text of {below} characters or more")


def read_news(row: Mapping[str, Any]) -> Row:
    """Read ``argilla/news-summary``: an article, of which the text after its Reuters mark is the post."""
    text, predictions = row["text"], row["prediction"]
    one_line(text)
    _check_length(text, 100, 1500)
    _, _, post = text.partition(REUTERS)
    if not post.strip():
        raise UnusableRow(f"no text after {REUTERS!r}")
    best = next(iter(_texts(predictions)), None)
    return Row(_identifier(row["id"]), one_line(post), _optional(best))


def read_reddit(row: Mapping[str, Any]) -> Row:
    """Read ``trl-lib/tldr`` (prompt, completion) or the comparisons of ``openai/summarize_from_feedback``."""
    if "info" in row:
        info, summaries, choice = row["info"] or {}, _texts(row["summaries"]), row.get("choice") or 0
        post, identifier = info.get("post"), _identifier(info.get("id"))
        reference = summaries[choice] if choice < len(summaries) else None
    else:
        prompt, reference = row["prompt"], row["completion"]
        one_line(prompt)
        post, identifier = prompt.rpartition("TL;DR:")[0] or prompt, None
        post = post.partition("POST:")[2] if "POST:" in post else post
    text = one_line(post)
    _check_length(text, 100, 1200)
    return Row(identifier, text, _optional(reference))


def read_stack(row: Mapping[str, Any]) -> Row:
    """Read ``lvwerra/stack-exchange-paired``: a question with a better (j) and a worse answer."""
    question, answer = row["question"], row["response_j"]
    text = one_line(question)
    _check_length(question, 0, 300)
    return Row(_identifier(row["qid"]), text, _optional(answer))


def read_review(row: Mapping[str, Any]) -> Row:
    """Read ``stanfordnlp/imdb``: the review is the reference answer to an instruction that is always the same."""
    text = one_line(row["text"])
    _check_length(row["text"], 200, float("inf"))
    return Row(None, REVIEW, text)


def read_assistant(row: Mapping[str, Any]) -> Row:
    """Read ``Anthropic/hh-rlhf``: the first turn of the chosen dialogue and its answer."""
    chosen = row["chosen"]
    one_line(chosen)
    _, human, rest = chosen.partition("Human:")
    turn, assistant, rest = rest.partition("Assistant:")
    if not human or not assistant:
        raise UnusableRow("no dialogue")
    text = one_line(turn)
    _check_length(text, 5, 100)
    return Row(None, text, _optional(rest.partition("Human:")[0]))
