"""The section of the task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from rsoup.recipe.base import (
    Count,
    ResponseRule,
    Section,
)


class TaskSection(Section):
    """What the model is asked, and with which data."""

    name: str | None = None
    """A bundled task (see README); the other keys override its settings."""
    dataset: str | None = None
    """One of the data sets of the bundled task; none: its first."""
    data: str | None = None
    """Training rows: a JSON, JSONL, CSV, TSV (also .gz, .zst) or Parquet file, a folder saved by datasets, a hub id."""
    config: str | None = None
    """The configuration of a data set that has several (openai/gsm8k: main)."""
    eval_config: str | None = None
    """The configuration of eval_data; none: config, where both are the same data set."""
    split: str | None = None
    """The split to train on, if it is not train (train_sft)."""
    eval_split: str | None = None
    """The split that is held out (test_sft), of eval_data or else of data."""
    eval_data: str | None = None
    """Held-out rows, in the same forms; none: the last eval_share of the training texts is held out."""
    eval_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the texts held out, with all rows that ask them, when there is no eval_data."""
    gym: str | None = None
    """A task of reasoning-gym (chain_sum, letter_counting, ...): its rows are made, and scored by the reward gym."""
    gym_config: dict[str, Any] = {}
    """What that task is configured with (seed included; 0 unless given)."""
    gym_size: Count = 1000
    """How many rows are made of it, all with different questions; the last eval_share of them is held out."""
    column: str | None = None
    """The column that holds the post, a text or a conversation; a.b is b within a. None: told by the rows' shape."""
    reference: str | None = None
    """The column that holds a reference answer. None: told by the shape, where that is not post alone."""
    id: str | None = None
    """The column that tells rows apart (default id); without it a row is known by its number."""
    template: str | None = None
    """The prompt, or the last turn of a conversation, with {post} in the place of the post. None: the post alone."""
    system: str | None = None
    """The system message of every prompt, in the place of rows' own; an empty one leaves none. Implies chat."""
    chat: bool | None = None
    """Put the prompt into the tokenizer's chat template as the user's turn. None: if rows are conversations."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template, such as enable_thinking: false."""
    max_prompt_tokens: Count | None = None
    """Rows with a longer prompt are left out and counted."""
    prefix: Annotated[list[Count], Field(min_length=2, max_length=2)] | Literal[False] | None = None
    """End prompts with the first tokens of the reference answer, [least, most] of them; false: do not."""
    response: ResponseRule | None = None
    """What rewards read of an answer: the whole of it (the default), its first sentence, or what comes after </think>,
    which is nothing if a thought does not end."""

    @field_validator("prefix")
    @classmethod
    def _ordered_prefix(cls, prefix: list[int] | Literal[False] | None) -> list[int] | Literal[False] | None:
        if prefix and prefix[0] > prefix[1]:
            raise ValueError(f"the least number of tokens ({prefix[0]}) exceeds the most ({prefix[1]})")
        return prefix
