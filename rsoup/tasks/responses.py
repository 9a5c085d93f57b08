"""What rewards read of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rsoup.recipe import ResponseRule

if TYPE_CHECKING:
    from rsoup.tasks.prompts import Example

OPEN, CLOSE = "<think>", "</think>"
"""Around the thoughts that models of reasoning write before their answers."""


def apply_rule(text: str, rule: ResponseRule) -> str:
    """Return the part of an answer that counts.

    That is all of it; what comes before the first full stop, and a stop; or what comes after the thought, which is
    nothing if the thought does not end.
    """
    if rule == "first_sentence":
        return text.partition(".")[0] + "."
    if rule == "after_think":
        return "" if is_unfinished(text) else text.rpartition(CLOSE)[2].strip()
    return text


def is_unfinished(text: str) -> bool:
    """Tell whether a text has a thought that does not end."""
    return text.rfind(OPEN) > text.rfind(CLOSE)


def read_responses(tokenizer: Any, examples: Sequence[Example], completions: Sequence[Sequence[int]]) -> list[str]:
    """Return the answers that rewards read, one for each example and the token ids that completed its prompt.

    An answer begins with the tokens of the reference that its prompt ended with; they are decoded together, since a
    word may begin in one and end in the other.
    """
    texts = _answers(tokenizer, examples, completions)
    return [apply_rule(text, example.response) for example, text in zip(examples, texts, strict=True)]


def unfinished_thoughts(
    tokenizer: Any, examples: Sequence[Example], completions: Sequence[Sequence[int]]
) -> list[bool]:
    """Return which answers are read as empty because their thought has no end; none where thoughts are read too."""
    if not reads_after_thought(examples):
        return [False] * len(examples)
    return [is_unfinished(text) for text in _answers(tokenizer, examples, completions)]


def reads_after_thought(examples: Sequence[Example]) -> bool:
    """Tell whether rewards read what comes after a thought; the examples of a task have one rule."""
    return bool(examples) and examples[0].response == "after_think"


def _answers(tokenizer: Any, examples: Sequence[Example], completions: Sequence[Sequence[int]]) -> list[str]:
    """Return whole answers; where rewards read what comes after a thought, it begins with one that its prompt opens."""
    rows = [[*example.prefix_tokens, *ids] for example, ids in zip(examples, completions, strict=True)]
    if reads_after_thought(examples) or any(map(opens_thought, examples)):
        texts = [_with_marks(tokenizer, row) for row in rows]
    else:
        texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    opened = [example.response == "after_think" and opens_thought(example) for example in examples]
    return [(OPEN + text if begun else text).strip() for begun, text in zip(opened, texts, strict=True)]


def opens_thought(example: Example) -> bool:
    """Tell whether a prompt ends with the beginning of a thought, as some chat templates have it."""
    return example.prompt.removesuffix(example.prefix).rstrip().endswith(OPEN)


def _with_marks(tokenizer: Any, row: Sequence[int]) -> str:
    """Decode without special tokens but with the marks of thoughts, which some tokenizers count among these."""
    marks = {
        tokenizer.convert_tokens_to_ids(mark): mark for mark in (OPEN, CLOSE) if mark in tokenizer.all_special_tokens
    }
    parts, part = [], list[int]()
    for token in row:
        if token in marks:
            parts += [tokenizer.decode(part, skip_special_tokens=True), marks[token]]
            part = []
        else:
            part.append(token)
    return "".join([*parts, tokenizer.decode(part, skip_special_tokens=True)])
