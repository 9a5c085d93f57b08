"""What is measured of completions besides their rewards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rsoup.evaluation.applying import Change
from rsoup.models import packing
from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import Completions

CHUNK = 128
"""Tokens whose distributions exist at the same time."""
LARGEST_EXPONENT = 700.0


class Reference:
    """A model that reads completions: the start or the base. It encodes a prompt once for the whole sweep."""

    def __init__(self, model: LanguageModel, change: Change, budget: int) -> None:
        self.model, self.change = model, change
        self._budget = budget
        self._read: dict[tuple[tuple[int, ...], ...], tuple[DynamicCache, Tensor]] = {}

    @torch.no_grad()
    def states(self, prompts: Sequence[Sequence[int]], ids: Tensor) -> Tensor:
        """Return the states that predict each completion token. P prompts, (P, G, T) -> (P, G, T, d)."""
        prompt_ids, prompt_mask = self.model.pad(prompts)
        group, tokens = ids.shape[1:]
        length = prompt_ids.shape[1]
        with self.change:
            if not self.model.packs(length + tokens) or tokens == 1:
                return self.model.completion_states(prompt_ids, prompt_mask, ids)
            cache, last = self._prompts(tuple(map(tuple, prompts)), prompt_ids, prompt_mask)
            rest = packing.pack(prompt_ids, ids)[:, length:]
            mask = packing.attention_mask(prompt_mask, group, tokens - 1, queries=None if group == 1 else rest.shape[1])
            positions = packing.completion_positions(prompt_mask, group, 0, tokens - 1)
            hidden = self.model.hidden_states(rest, mask, positions, cache=cache)
            _cut(cache, length)
            first = last[:, :, None].expand(-1, group, 1, -1)
            return torch.cat([first, hidden.view(len(ids), tokens - 1, group, -1).transpose(1, 2)], dim=2)

    def _prompts(
        self, key: tuple[tuple[int, ...], ...], prompt_ids: Tensor, prompt_mask: Tensor
    ) -> tuple[DynamicCache, Tensor]:
        """Return the cache of some prompts and their last hidden states (P, 1, d)."""
        if key not in self._read:
            cache = DynamicCache()
            hidden = self.model.hidden_states(
                prompt_ids, prompt_mask, packing.prompt_positions(prompt_mask), cache=cache
            )
            read = cache, hidden[:, -1:].clone()
            size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
            if size > self._budget:
                return read
            self._budget -= size
            self._read[key] = read
        return self._read[key]


def _cut(cache: DynamicCache, length: int) -> None:
    """Let a cache forget what comes after its first ``length`` tokens."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]


@torch.no_grad()
def divergence(
    model: LanguageModel,
    change: Change,
    reference: Reference,
    completions: Completions,
    read: Tensor,
    temperature: float,
) -> Tensor:
    """Return the KL divergence from a reference per completion, in nats: (P, G).

    The sum over its tokens of KL(p(. | s) || q(. | s)), taken over the whole vocabulary: for sampled completions an
    unbiased estimate of the divergence of the sequences, without the noise of the sampled token's log-ratio.
    """
    assert completions.states is not None
    result = read.new_zeros(completions.mask.shape, dtype=torch.float32)
    rows = zip(completions.states[completions.mask].split(CHUNK), read[completions.mask].split(CHUNK), strict=True)
    parts = []
    for own, other in rows:
        with change:
            p = (model.logits(own).float() / temperature).log_softmax(-1)  # (chunk, V)
        with reference.change:
            q = (reference.model.logits(other).float() / temperature).log_softmax(-1)
        parts.append((p.exp() * (p - q)).sum(-1))
    result[completions.mask] = torch.cat(parts)
    return result.sum(-1)


@torch.no_grad()
def surprise(reference: Reference, completions: Completions, read: Tensor) -> Tensor:
    """Return minus the log-probability of each completion under a reference, in nats: (P, G)."""
    with reference.change:
        logprobs = reference.model.logprobs(read, completions.ids, 1.0)
    return -(logprobs * completions.mask).sum(-1)


def perplexity(surprises: Iterable[float], tokens: int) -> float:
    """Return exp of the mean surprise per token."""
    return math.exp(min(math.fsum(surprises) / tokens, LARGEST_EXPONENT))


def distinct(rows: Sequence[Sequence[int]], n: int) -> float:
    """Return the number of different n-grams over the number of n-grams (Li et al. 2016), 0 if there are none."""
    grams = [tuple(row[start : start + n]) for row in rows for start in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
