"""Resolve a recipe that is about to be written, as the commands will that run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsoup.errors import RewardError
from rsoup.recipe_file import parse_recipe_text

if TYPE_CHECKING:
    from rsoup.resolve import Resolved

TRIED = 2
"""Rows on which reward functions are tried."""


def takes_chat(base: str) -> bool:
    """Tell whether a model's tokenizer has a chat template."""
    from rsoup.models.load import load_tokenizer

    return load_tokenizer(base, None).chat_template is not None


def check(text: str, path: Path) -> list[str]:
    """Raise RsoupError if a recipe names what is not there, or rows or rewards that do not fit.

    Reward models are looked up, not loaded; functions are tried, as the training will call them, and what they fail
    with is returned: it may be due to the answer they are tried on.
    """
    from rsoup.resolve import resolve

    resolved = resolve(parse_recipe_text(text, str(path)))
    for examples in (resolved.training_examples, resolved.held_out_examples):
        resolved.check_applying(resolved.rewards, examples)
    for reward in resolved.rewards.values():
        if reward.section.model is None:
            _ = reward.scorer
    return _failures(resolved)


def _failures(resolved: Resolved) -> list[str]:
    """Return what functions fail with on the first rows, answered by the reference or the post's first sentence."""
    from rsoup.rewards.samples import sample_of
    from rsoup.rewards.scoring import score_all
    from rsoup.rewards.tryout import answer_for, tokens_of

    functions = {name: own for name, own in resolved.rewards.items() if own.section.function is not None}
    if not functions:
        return []
    make, found = tokens_of(resolved.recipe), list[str]()
    rows = resolved.training_examples.rows[:TRIED]
    answers = [answer_for(row, resolved.task.response) for row in rows]
    samples = [sample_of(row, answer, make(answer)) for row, answer in zip(rows, answers, strict=True)]
    for name, own in functions.items():
        try:
            score_all({name: own.scorer}, samples)
        except RewardError as problem:
            found.append(f"{problem.message} {problem.hint}")
    return found
