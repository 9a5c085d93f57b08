"""The section of a reward."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from rsoup.errors import did_you_mean
from rsoup.recipe.base import (
    NAME_PATTERN,
    TEMPLATE_FIELDS,
    TEMPLATE_WORDS,
    Count,
    Direction,
    Section,
)
from rsoup.recipe.judge import JudgeSection


class RewardSection(Section):
    """One reward: an entry of the registry, a sequence classifier, a function, or a judge (one of these four keys)."""

    use: str | None = None
    """An entry of the registry (``rsoup rewards``); the default is the entry of the reward's own name."""
    model: str | None = None
    """A sequence classifier: a local folder or a hub id. It reads with its own tokenizer. One that the registry knows
    takes from there what is not given here."""
    function: str | None = None
    """``module:function`` or ``path/to/file.py:function``, called with what its parameters name: prompts, completions,
    columns of the rows (README, reward functions)."""
    judge: JudgeSection | None = None
    """A language model that scores by a rubric in plain words (README, judges)."""
    columns: dict[str, str] = {}
    """For a function: which column of the rows a parameter gets, where their names differ."""
    direction: Direction = "maximize"
    """minimize if lower scores are better: training lowers it, comparisons count it so, and it keeps its sign."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run code from the repository of a hub id. Without it nothing of a repository is ever run."""
    format: str | None = None
    """For a classifier: a label (index or name), or a difference or sum of them, as in ``1-0``; a number of another
    output than the logits as in ``rewards.3``. Default: 0."""
    template: str | None = None
    """For a classifier: the text it reads, where {post} {completion} {bos} {eos} {sep} {cls} are filled in; or
    ``chat`` (its own chat template), ``pair`` (its tokenizer joins post and completion), ``text`` (for
    ``{post}{sep}{completion}``). Default: the first of these three that the model has."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """For a classifier, or a judge that is loaded here: its weights; auto is float32 on the CPU (the same scores at any
    batch size), else its own."""
    max_tokens: Count | None = None
    """For a classifier: of what is longer, the post is cut. Default: what the model can read."""
    pattern: str | None = None
    """For ``regex`` and ``contains``: the regular expression to look for in the completion."""
    json_schema: Annotated[
        dict[str, Any] | str | None, Field(validation_alias=AliasChoices("schema", "json_schema"))
    ] = None
    """For ``json`` (``schema:``): the JSON schema that the completion has to fulfil, or the file that holds it."""
    target: Count | None = None
    """For ``length``: the number of words to aim at."""
    batch_size: Count = 32
    """Texts scored at once."""

    @model_validator(mode="after")
    def _one_source(self) -> RewardSection:
        if sum(source is not None for source in (self.use, self.model, self.function, self.judge)) > 1:
            raise ValueError("give only one of use, model, function and judge")
        return self

    @field_validator("pattern")
    @classmethod
    def _valid_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as problem:
                raise ValueError(f"it is not a regular expression ({problem})") from problem
        return pattern

    @field_validator("template")
    @classmethod
    def _known_fields(cls, template: str | None) -> str | None:
        if template is None or template in TEMPLATE_WORDS:
            return template
        unknown = set(re.findall(r"\{(\w*)\}", template)) - TEMPLATE_FIELDS
        if unknown:
            raise ValueError(
                f"the template has the unknown field {{{min(unknown)}}}\nKnown: {', '.join(sorted(TEMPLATE_FIELDS))}."
            )
        if "{completion}" not in template:
            hint = f"\n{did_you_mean(template, TEMPLATE_WORDS)}" if re.fullmatch(r"\w+", template) else ""
            raise ValueError(f"the template has no {{completion}}, so every completion would score the same{hint}")
        return template


def _rewards_from_list(value: Any) -> Any:
    """Read ``[positive, faithful]`` as ``{positive: {}, faithful: {}}`` and a null entry as an empty one."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        if len(set(value)) < len(value):
            raise ValueError("the same reward is listed twice")
        value = dict.fromkeys(value)
    if isinstance(value, dict):
        return {name: {} if section is None else section for name, section in value.items()}
    return value


Rewards = Annotated[
    dict[Annotated[str, Field(pattern=NAME_PATTERN)], RewardSection],
    BeforeValidator(_rewards_from_list),
    Field(min_length=1),
]
