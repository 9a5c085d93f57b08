"""What is measured of completions besides their rewards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rsoup.evaluation.applying import Change
from rsoup.models import packing
from rsoup.models.encoding import Encoded, encode
from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import Completions

CHUNK = 128
"""Tokens whose distributions exist at the same time."""
LARGEST_EXPONENT = 700.0


class Reference:
    """A model that reads completions of up to ``longest`` tokens: the start or the base.

    It encodes prompts once for the whole sweep, as far as they fit into ``budget`` bytes.
    """

    def __init__(self, model: LanguageModel, change: Change, longest: int, budget: int) -> None:
        self.model, self.change = model, change
        self._longest, self._budget = longest, budget
        self._read: dict[tuple[tuple[int, ...], ...], Encoded] = {}

    @torch.no_grad()
    def states(self, prompts: Sequence[Sequence[int]], ids: Tensor) -> Tensor:
        """Return the states that predict each completion token. P prompts, (P, G, T) -> (P, G, T, d)."""
        prompt_ids, prompt_mask = self.model.pad(prompts)
        group, tokens = ids.shape[1:]
        length = prompt_ids.shape[1]
        with self.change:
            if not self.model.packs(length + tokens) or tokens == 1:
                return self.model.completion_states(prompt_ids, prompt_mask, ids)
            encoded = self._prompts(tuple(map(tuple, prompts)), prompt_ids, prompt_mask, group)
            rest = packing.pack(prompt_ids, ids)[:, length:]
            mask = self.model.row_mask(prompt_mask, group, tokens - 1, queries=None if group == 1 else rest.shape[1])
            positions = packing.completion_positions(prompt_mask, group, 0, tokens - 1)
            hidden = self.model.hidden_states(rest, mask, positions, cache=encoded.cache)
            encoded.cache.crop(-rest.shape[1])
            first = encoded.last[:, :, None].expand(-1, group, 1, -1)
            return torch.cat([first, hidden.view(len(ids), tokens - 1, group, -1).transpose(1, 2)], dim=2)

    def _prompts(
        self, key: tuple[tuple[int, ...], ...], prompt_ids: Tensor, prompt_mask: Tensor, group: int
    ) -> Encoded:
        """Return prompts encoded, with room for completions; kept for later calls while they fit the budget."""
        if key not in self._read:
            encoded: Encoded = encode(self.model, prompt_ids, prompt_mask, tokens=self._longest, group=group)
            if encoded.nbytes > self._budget:
                return encoded
            self._budget -= encoded.nbytes
            self._read[key] = encoded
        return self._read[key]


@torch.no_grad()
def divergence(
    model: LanguageModel,
    change: AbstractContextManager[Any],
    reference: Reference,
    completions: Completions,
    read: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return the KL divergence from a reference per completion, and the reference's surprise, in nats: twice (P, G).

    The divergence is the sum over the tokens of KL(p(. | s) || q(. | s)), taken over the whole vocabulary: for sampled
    completions an unbiased estimate of the divergence of the sequences, without the noise of the sampled token's
    log-ratio. The surprise is minus the log-probability of the completion at temperature 1.
    """
    assert completions.states is not None
    mask = completions.mask
    parts = []
    chunks = (values[mask].split(CHUNK) for values in (completions.states, read, completions.ids))
    for own, other, tokens in zip(*chunks, strict=True):
        with change:
            logp = (model.logits(own).float() / temperature).log_softmax(-1)  # (chunk, V)
        with reference.change:
            logits = reference.model.logits(other).float()
        logq = logits.log_softmax(-1)
        surprises = -logq.gather(-1, tokens[:, None]).squeeze(-1)
        if temperature != 1:
            logq = (logits / temperature).log_softmax(-1)
        p = logp.exp()
        parts.append(torch.stack([torch.linalg.vecdot(p, logp.sub_(logq)), surprises]))
    result = read.new_zeros(2, *mask.shape, dtype=torch.float32)
    result[:, mask] = torch.cat(parts, dim=1)
    kl, surprised = result.sum(-1)
    return kl, surprised


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
