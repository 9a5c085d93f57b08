"""What rewards read of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rsoup.recipe import ResponseRule

if TYPE_CHECKING:
    from rsoup.tasks.loading import Example


def apply_rule(text: str, rule: ResponseRule) -> str:
    """Return the part of an answer that counts: all of it, or what comes before the first full stop, and a stop."""
    return text if rule == "whole" else text.partition(".")[0] + "."


def read_responses(tokenizer: Any, examples: Sequence[Example], completions: Sequence[Sequence[int]]) -> list[str]:
    """Return the answers that rewards read, one for each example and the token ids that completed its prompt.

    An answer begins with the tokens of the reference that its prompt ended with; they are decoded together, since a
    word may begin in one and end in the other.
    """
    rows = [[*example.prefix_tokens, *ids] for example, ids in zip(examples, completions, strict=True)]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [apply_rule(text.strip(), example.response) for example, text in zip(examples, texts, strict=True)]
