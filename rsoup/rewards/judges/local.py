"""A judge that is loaded here: the score it is expected to give, in one pass over each question."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from rsoup.errors import RewardError, first_line
from rsoup.models import packing
from rsoup.models.encoding import passes
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model, model_sha256, pick_device, settings_sha256
from rsoup.recipe import RewardSection
from rsoup.rewards import judge_dtype
from rsoup.rewards.judges.judge import Judge
from rsoup.rewards.judges.texts import LETTERS, Question, prompt_of, questions
from rsoup.rewards.samples import Sample
from rsoup.rewards.tokens import without

_LOADED: WeakValueDictionary[tuple[Any, ...], LanguageModel] = WeakValueDictionary()


class LocalJudge(Judge):
    """The mean over the digits of a scale (or the share of the letter A), each with the probability it would be said.

    Probabilities are those of the first token of the answer, over the tokens that are one of the answers; each answer
    counts with and without a space before it. Rewards of one model, in one dtype, share it.
    """

    def __init__(self, name: str, section: RewardSection) -> None:
        assert section.judge is not None
        super().__init__(name, section.judge)
        self._what = f"The reward {name}: the judge {section.judge.model}"
        self._model = _load(section)
        self._batch_size = section.batch_size
        self._choices = self._tokens_of(_replies(section))
        self._limit = _limit(self._model)

    def values(self, asked: Sequence[Question]) -> list[float]:
        """Return the expected answer to each question."""
        if not asked:
            return []
        shares = self._shares([question.text for question in asked])
        values: list[float] = (shares @ self._numbers).tolist()
        return values

    def answers(self, asked: Sequence[Question]) -> list[str]:
        """Return the probability of each answer."""
        rows = self._shares([question.text for question in asked]) if asked else np.empty((0, 0))
        return ["  ".join(f"{reply} {p:.3f}" for reply, p in zip(self._choices, row, strict=True)) for row in rows]

    @property
    def _numbers(self) -> np.ndarray:
        """What each answer counts."""
        return np.array([1.0, 0.0] if self.judge.pairwise else [float(reply) for reply in self._choices])

    def _shares(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each answer among the answers. n texts -> float64 (n, answers)."""
        rows = {text: self._ids(text) for text in dict.fromkeys(texts)}
        unique, found = list(rows), dict[str, np.ndarray]()
        began, read, whole = time.monotonic(), 0, sum(map(len, rows.values()))
        for part in passes([len(ids) for ids in rows.values()]):
            for start in range(0, len(part), self._batch_size):
                batch = [unique[index] for index in part[start : start + self._batch_size]]
                found |= dict(zip(batch, self._pass([rows[text] for text in batch]), strict=True))
                read += sum(len(rows[text]) for text in batch)
                self.pace.after(len(found), len(rows), time.monotonic() - began, read / whole)
        return np.stack([found[text] for text in texts])

    @torch.no_grad()
    def _pass(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        model = self._model
        ids, mask = model.pad(rows)
        hidden = model.hidden_states(ids, mask, packing.prompt_positions(mask))[:, -1]
        logits = model.logits(hidden).double()  # (n, V)
        scores = torch.stack([_together(logits, tokens) for tokens in self._choices.values()], dim=-1)
        shares: np.ndarray = scores.softmax(-1).cpu().numpy()
        return shares

    def fit(self, sample: Sample) -> Sample:
        """Return the sample as the model may read it.

        Its special tokens are none there, and what is too long is cut: the prompt's beginning, then the answer's end.
        """
        texts = {"post": prompt_of(sample), "completion": sample.completion, "reference": sample.reference or ""}
        clean = {name: self._harmless(text) for name, text in texts.items()}
        if clean != texts:
            reference = None if sample.reference is None else clean["reference"]
            sample = Sample(clean["post"], clean["completion"], reference=reference)
        excess = self._excess(sample)
        if excess <= 0:
            return sample
        sample = replace(sample, post=prompt_of(sample), messages=None)
        for part in ("post", "completion"):
            whole, count = getattr(sample, part), 0
            while excess > 0 and getattr(sample, part):
                count += excess
                text = without(self._model.tokenizer, whole, count, front=part == "post")
                sample = replace(sample, post=text) if part == "post" else replace(sample, completion=text)
                excess = self._excess(sample)
        if excess > 0:
            raise RewardError(
                f"{self._what} reads {self._limit} tokens, and a question without prompt and answer has more.",
                "Shorten the rubric, or take a judge with a longer context.",
            )
        return sample

    def _excess(self, sample: Sample) -> int:
        lengths = [len(self._ids(question.text)) for question in questions(self.judge, sample)]
        return max(lengths, default=0) - (self._limit or max(lengths, default=0))

    def _ids(self, text: str) -> list[int]:
        tokenizer = self._model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return list(tokenizer(f"{text}\n\nReply:", verbose=False)["input_ids"])
        try:
            written = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        except Exception as problem:  # whatever a template raises
            raise RewardError(
                f"{self._what}: its chat template cannot write a question: {first_line(problem)}.",
                "Take a model whose template takes a single turn of the user.",
            ) from problem
        return list(tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"])

    def _harmless(self, text: str) -> str:
        """Return a text in which nothing is read as a special token of the judge."""
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @property
    def _special(self) -> list[str]:
        tokenizer = self._model.tokenizer
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        return sorted({*tokenizer.all_special_tokens, *added} - {""}, key=len, reverse=True)

    def _tokens_of(self, replies: Sequence[str]) -> Mapping[str, Tensor]:
        """Return the tokens that an answer may begin with; RewardError if two answers share one, or one has none."""
        tokenizer, found = self._model.tokenizer, dict[str, set[int]]()
        for reply in replies:
            last = (tokenizer(text, add_special_tokens=False)["input_ids"][-1:] for text in (reply, f" {reply}"))
            found[reply] = {ids[0] for ids in last if ids and tokenizer.decode(ids).strip() == reply}
        every = [token for tokens in found.values() for token in tokens]
        if not all(found.values()) or len(set(every)) < len(every):
            raise RewardError(
                f"{self._what}: its tokenizer has no token of its own for each of {', '.join(replies)}.",
                "Take another model.",
            )
        device = self._model.device
        return {reply: torch.tensor(sorted(tokens), device=device) for reply, tokens in found.items()}


def _replies(section: RewardSection) -> list[str]:
    assert section.judge is not None
    least, most = section.judge.scale
    return list(LETTERS) if section.judge.pairwise else [str(number) for number in range(least, most + 1)]


def _together(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits[:, tokens].logsumexp(-1)


def _limit(model: LanguageModel) -> int | None:
    declared = getattr(model.config, "max_position_embeddings", None)
    known = [limit for limit in (declared, model.tokenizer.model_max_length) if limit and limit < 1_000_000]
    return min(known, default=None)


def _load(section: RewardSection) -> LanguageModel:
    assert section.judge is not None
    name, dtype = section.judge.model, judge_dtype(section.dtype, pick_device().type)
    key = (name, model_sha256(name, section.revision), settings_sha256(name, section.revision), dtype)
    found = _LOADED.get(key)
    if found is None:
        found = _LOADED[key] = load_language_model(name, revision=section.revision, dtype=dtype, exact=True)
    return found
