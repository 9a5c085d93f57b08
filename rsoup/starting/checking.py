"""Resolve a recipe that is about to be written, as the commands will that run it."""

from __future__ import annotations

from pathlib import Path

from rsoup.recipe_file import parse_recipe_text


def takes_chat(base: str) -> bool:
    """Tell whether a model's tokenizer has a chat template."""
    from rsoup.models.load import load_tokenizer

    return load_tokenizer(base, None).chat_template is not None


def check(text: str, path: Path) -> list[str]:
    """Raise RsoupError if a recipe names what is not there, or rows or rewards that do not fit; return remarks.

    Reward models are looked up, not loaded.
    """
    from rsoup.resolve import resolve

    resolved = resolve(parse_recipe_text(text, str(path)))
    said: list[str] = []
    for what, examples in (("training", resolved.training_examples), ("held-out", resolved.held_out_examples)):
        resolved.check_applying(resolved.rewards, examples)
        said += examples.remarks(what)
    for reward in resolved.rewards.values():
        if reward.section.model is None:
            _ = reward.scorer
    return list(dict.fromkeys(said))
