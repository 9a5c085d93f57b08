"""Any sequence classifier as a reward, with its own tokenizer and text format."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rsoup.errors import RewardError, did_you_mean, first_line
from rsoup.models.load import UNREADABLE, folder_or_hub_id, load_weights, pick_device
from rsoup.recipe import RewardSection

DEFAULT_MAX_TOKENS = 512


class Classifier:
    """The raw logit of a label, or the difference of two, for the text the recipe's template makes."""

    def __init__(self, name: str, section: RewardSection) -> None:
        source = section.model
        assert source is not None
        location = folder_or_hub_id(source, f"The reward {name}: {source}", RewardError)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(location, revision=section.revision)
            model = load_weights(AutoModelForSequenceClassification, location, section.revision)
        except UNREADABLE as problem:
            reason = first_line(problem)
            raise RewardError(
                f"The reward {name}: {source} cannot be loaded: {reason}",
                "Check the name, the network and your access; it has to be a sequence classifier.",
            ) from problem
        self._model = model.to(pick_device()).eval()
        self._template = section.template
        self._batch_size = section.batch_size
        self._plus, self._minus = self._parse_format(name, section.format)
        self._max_tokens = self._longest_input()
        # what does not fit is cut off the post, not off the completion
        self._tokenizer.truncation_side = "right" if self._completion_comes_first() else "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self._tokenizer.pad_token_id

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        """Return the raw score of each completion, float64 (n,)."""
        texts = [self.text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        scores = np.empty(len(texts))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            scores[batch] = self._score([texts[index] for index in batch])
        return scores

    def text(self, prompt: str, completion: str) -> str:
        """Return the text the classifier reads."""
        special = {key: getattr(self._tokenizer, f"{key}_token") or "" for key in ("bos", "eos", "sep", "cls")}
        fields = {**special, "post": prompt, "completion": completion}
        return re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), self._template)

    def _completion_comes_first(self) -> bool:
        post = self._template.find("{post}")
        return post < 0 or self._template.find("{completion}") < post

    @torch.no_grad()
    def _score(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._model.device)
        logits = self._model(**inputs).logits.float()  # (b, labels)
        score = logits[:, self._plus]
        if self._minus is not None:
            score = score - logits[:, self._minus]
        result: np.ndarray = score.cpu().double().numpy()
        return result

    def _longest_input(self) -> int:
        limits = [self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None)]
        known = [limit for limit in limits if limit is not None and limit < 1_000_000]
        return min(known, default=DEFAULT_MAX_TOKENS)

    def _parse_format(self, name: str, text: str) -> tuple[int, int | None]:
        labels: dict[str, int] = {str(label): index for label, index in self._model.config.label2id.items()}
        known = {**{str(index): index for index in labels.values()}, **labels}
        if text in known:
            return known[text], None
        for cut in (index for index, character in enumerate(text) if character == "-"):
            plus, minus = text[:cut], text[cut + 1 :]
            if plus in known and minus in known:
                return known[plus], known[minus]
        raise RewardError(
            f"The reward {name}: the format {text!r} names no label of the model.", did_you_mean(text, labels)
        )
