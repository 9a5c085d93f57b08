"""A model that answers anything at once: with it a task shows its metrics, and whether they can be computed."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM

ANSWER = "1"


class Rehearsal(LM):
    """Answers every request alike; chats go through a tokenizer's template."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.chat_template_args: dict[str, Any] = {}

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval calls the tokenizer in keys of a cache that is not used."""
        return ""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Find each continuation less likely than the one before."""
        return [(-1.0 - number % 7, False) for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Find all texts alike."""
        return [-1.0] * len(requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Say the same to everything."""
        return [ANSWER] * len(requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Write turns as the tokenizer's template does."""
        text: str = HFLM.apply_chat_template(self, chat_history, add_generation_prompt)
        return text
