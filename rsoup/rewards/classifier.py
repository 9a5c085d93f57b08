"""Any sequence classifier as a reward, with its own tokenizer and text format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rsoup.errors import RewardError, did_you_mean, first_line
from rsoup.hub import commit_of, folder_or_hub_id, hub_trouble
from rsoup.models.load import UNREADABLE, load_weights, pick_device
from rsoup.recipe import RewardSection
from rsoup.rewards import DEFAULT_TEMPLATE, WEIGHTED
from rsoup.rewards.samples import Sample

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True)
class Reading:
    """What a classifier reads of a post and a completion, and what it makes of it."""

    text: str
    ids: list[int]
    tokens: list[str]
    cut: int
    logits: dict[str, float]


class Classifier:
    """The raw logit of a label, or the difference of two, for the text the recipe's template makes."""

    def __init__(self, name: str, section: RewardSection) -> None:
        source = section.model
        assert source is not None
        what = f"The reward {name}: {source}"
        location = folder_or_hub_id(source, what, RewardError)
        options: dict[str, Any] = {"trust_remote_code": section.trust_remote_code}
        try:
            revision = None if Path(location).is_dir() else commit_of(location, section.revision)
            self._tokenizer = AutoTokenizer.from_pretrained(location, revision=revision, **options)
            model = load_weights(AutoModelForSequenceClassification, location, revision, **options)
        except UNREADABLE as problem:
            told = (
                f"{what} cannot be loaded: {first_line(problem)}.",
                "Check the name, the network and your access; it has to be a sequence classifier.",
            )
            raise RewardError(*(hub_trouble(problem, what, "reward model") or told)) from problem
        self._model = model.to(pick_device()).eval()
        self._template = section.template or DEFAULT_TEMPLATE
        self._special = _special_tokens(what, self._template, self._tokenizer)
        self._batch_size = section.batch_size
        labels: Mapping[str, int] = self._model.config.label2id
        self._labels = {index: str(label) for label, index in labels.items()}
        self._signs = parse_format(name, section.format or "0", self._labels)
        longest = self._longest_input()
        self._max_tokens = min(longest, section.max_tokens or longest)
        # what does not fit is cut off the post, not off the completion
        self._tokenizer.truncation_side = "right" if self._completion_comes_first() else "left"
        self._padding: int | None = getattr(self._model.config, "pad_token_id", None)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the raw score of each completion, float64 (n,)."""
        texts = [self.text(sample) for sample in samples]
        scores = np.empty(len(texts))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            logits = self._logits([texts[index] for index in batch])
            scores[batch] = sum(sign * logits[:, label] for label, sign in self._signs)
        return scores

    def text(self, sample: Sample) -> str:
        """Return the text the classifier reads."""
        fields = {**self._special, "post": sample.post, "completion": sample.completion}
        return re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), self._template)

    def read(self, sample: Sample) -> Reading:
        """Return the text, the tokens and the logits of one completion, and how many tokens were cut."""
        text = self.text(sample)
        ids = self._encode([text])["input_ids"][0]
        logits = self._logits([text])[0]
        return Reading(
            text=text,
            ids=ids,
            tokens=self._tokenizer.convert_ids_to_tokens(ids),
            cut=len(self._tokenizer(text, verbose=False)["input_ids"]) - len(ids),
            logits={label: float(logits[index]) for index, label in sorted(self._labels.items())},
        )

    def _completion_comes_first(self) -> bool:
        post = self._template.find("{post}")
        return post < 0 or self._template.find("{completion}") < post

    def _encode(self, texts: list[str]) -> dict[str, list[list[int]]]:
        """Return what the model reads of each text; of one without tokens, a special token."""
        encoded = dict(self._tokenizer(texts, truncation=True, max_length=self._max_tokens))
        for number, ids in enumerate(encoded["input_ids"]):
            if not ids:
                for key, rows in encoded.items():
                    rows[number] = [{"input_ids": self._nothing(), "attention_mask": 1}.get(key, 0)]
        return encoded

    def _nothing(self) -> int:
        """Return the token that stands for an empty text."""
        tokenizer = self._tokenizer
        known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
        return next((token for token in known if token is not None), 0)

    @torch.no_grad()
    def _logits(self, texts: list[str]) -> np.ndarray:
        """Return the logits of each text, float64 (n, labels)."""
        encoded = self._encode(texts)
        filler = {"input_ids": self._pad(encoded["input_ids"])}
        longest = max(map(len, encoded["input_ids"]))
        left = self._tokenizer.padding_side == "left"
        inputs = {}
        for key, rows in encoded.items():
            filled = [[filler.get(key, 0)] * (longest - len(row)) for row in rows]
            both = [fill + row if left else row + fill for row, fill in zip(rows, filled, strict=True)]
            inputs[key] = torch.tensor(both, device=self._model.device)
        logits: np.ndarray = self._model(**inputs).logits.float().cpu().double().numpy()
        return logits

    def _pad(self, rows: list[list[int]]) -> int:
        """Return the token to pad with: the model's, else one that no text has.

        Decoders score the last token that is not the model's padding: a text that ends with it would lose its end.
        """
        if self._padding is not None:
            return self._padding
        used = {token for row in rows for token in row}
        free = next((token for token in range(len(used) + 1) if token not in used), 0)
        self._model.config.pad_token_id = free
        return free

    def _longest_input(self) -> int:
        """Return the number of tokens the model can read: some tables of positions begin after the padding's."""
        tables = [
            module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            for name, module in self._model.named_modules()
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        ]
        declared = getattr(self._model.config, "max_position_embeddings", None)
        limits = [self._tokenizer.model_max_length, declared, *tables]
        known = [limit for limit in limits if limit is not None and 0 < limit < 1_000_000]
        return min(known, default=DEFAULT_MAX_TOKENS)


def _special_tokens(what: str, template: str, tokenizer: Any) -> dict[str, str]:
    """Return the special tokens that a template may fill in; RewardError if it names one that the model lacks."""
    tokens = {key: getattr(tokenizer, f"{key}_token", None) for key in ("bos", "eos", "sep", "cls")}
    for key, token in tokens.items():
        if token is None and f"{{{key}}}" in template:
            has = ", ".join(f"{{{name}}}" for name, found in tokens.items() if found is not None)
            raise RewardError(
                f"{what} reads the template {template!r}, and its tokenizer has no {key} token.",
                f"Set template to the text it was trained on; it has {has or 'no special tokens'}.",
            )
    return {key: token for key, token in tokens.items() if token is not None}


def parse_format(name: str, text: str, labels: Mapping[int, str]) -> list[tuple[int, int]]:
    """Return the labels that a format names, by name or index, with their signs: ``1-0`` is [(1, 1), (0, -1)]."""
    known = {**{str(index): index for index in labels}, **{label: index for index, label in labels.items()}}

    def parse(part: str) -> list[tuple[int, int]] | None:
        if part in known:
            return [(known[part], 1)]
        for cut in (index for index, character in enumerate(part) if character in "+-"):  # a label may have a hyphen
            rest = part[cut + 1 :]
            if rest in known and (first := parse(part[:cut])) is not None:
                return [*first, (known[rest], 1 if part[cut] == "+" else -1)]
        return None

    signs = parse(text)
    if signs is None:
        hint = did_you_mean(text, [*known])
        if (match := WEIGHTED.fullmatch(text)) and parse(match["format"]):
            hint = f"A weight goes to morl: [{{{name}: {match['weight']}, ...}}], or to --format of rsoup morl."
        raise RewardError(f"The reward {name}: the format {text!r} names no label of the model.", hint)
    return signs
