"""Attention on the CPU over rows that hold a prompt and its completions (``packing``), of what may look at each other.

A mask over such rows is mostly empty: of (L + G T)^2 pairs of tokens, G completions of T tokens have G T (L + T) of
their own. Here prompts are read by prompts, and each completion reads its prompt and itself. Nothing of the size of the
pairs is kept for the gradient: it is computed again, a part at a time. transformers calls ``attend`` in every layer,
once a model is told to (``NAME``); it knows such rows by their mask (``mask_of``), and leaves all others to the usual
attention.

Axes: P prompts of L columns, G completions of T tokens, H heads of queries, K of keys, r = H / K, d numbers each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rsoup"
LARGEST = 1 << 21
"""Pairs of tokens that are computed at once: what a processor's cache holds."""
_LAYOUT = "rsoup_layout"
_CHANGING = ("softcap", "s_aux", "position_bias")
"""Options of attention that would change what is computed here."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of a prompt (P, L), padded where its mask is false, and of ``tokens`` tokens of each of G completions.

    All of it but the last ``queries`` columns, if that is given, lies in a cache.
    """

    prompt_mask: Tensor
    group: int
    tokens: int
    queries: int | None = None

    @property
    def length(self) -> int:
        """Columns of the prompts."""
        return int(self.prompt_mask.shape[1])

    @property
    def size(self) -> int:
        """Columns of the rows."""
        return self.length + self.tokens * self.group

    @cached_property
    def of_prompts(self) -> Tensor:
        """What a prompt's tokens see of it: the earlier ones; padding sees itself. (P, 1, L, L)."""
        return _bias(self._causal(self.length) & self.prompt_mask[:, None] | self._same(self.length))

    @cached_property
    def of_completions(self) -> Tensor:
        """What the last tokens of a completion see of its prompt and of itself. (P, 1, T, L + tokens)."""
        steps = self.tokens if self.queries is None else self.queries // self.group
        own = self._causal(self.tokens)[-steps:].expand(len(self.prompt_mask), -1, -1)
        return _bias(torch.cat([self.prompt_mask[:, None].expand(-1, steps, -1), own], dim=2))

    @cached_property
    def of_last(self) -> Tensor:
        """What the last token of each completion sees of the row. (P, 1, G, L + tokens * G)."""
        own = self._same(self.group).repeat(1, self.tokens).expand(len(self.prompt_mask), -1, -1)
        return _bias(torch.cat([self.prompt_mask[:, None].expand(-1, self.group, -1), own], dim=2))

    def _causal(self, size: int) -> Tensor:
        return self.prompt_mask.new_ones(size, size).tril()

    def _same(self, size: int) -> Tensor:
        return torch.eye(size, dtype=torch.bool, device=self.prompt_mask.device)


def _bias(seen: Tensor) -> Tensor:
    """Return what is added to scores so that nothing but what is seen counts. (P, n, N) -> (P, 1, n, N)."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))[:, None]


def mask_of(layout: Layout) -> Tensor:
    """Return a mask that stands for a layout: of the right shape (P, 1, queries, size), it holds nothing."""
    queries = layout.size if layout.queries is None else layout.queries
    mask = layout.prompt_mask.new_zeros(1).expand(len(layout.prompt_mask), 1, queries, layout.size)
    setattr(mask, _LAYOUT, layout)
    return mask


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return what queries (P, H, n, d) read of keys and values (P, K, N, d). (P, n, H, d)."""
    layout: Layout | None = getattr(attention_mask, _LAYOUT, None)
    if layout is None:
        read: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)[0]
        return read, None
    if any(options.get(name) is not None for name in _CHANGING) or options.get("dropout"):
        raise NotImplementedError("attention that is more than a softmax over scores")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout.queries is None:
        length = layout.length
        prompts = _together(query[:, :, :length], key[:, :, :length], value[:, :, :length], layout.of_prompts, scale)
        if not layout.tokens:
            return prompts, None
        return torch.cat([prompts, _apart(query[:, :, length:], key, value, layout, scale)], dim=1), None
    if layout.queries == layout.group:
        return _together(query, key, value, layout.of_last, scale), None
    return _apart(query, key, value, layout, scale), None


def _together(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Let all queries (P, H, n, d) read all keys, as far as they see them. (P, n, H, d)."""
    prompts, heads, count, width = query.shape
    times = heads // key.shape[1]
    grouped = query.reshape(prompts, key.shape[1], times * count, width)
    read = _Attention.apply(grouped, key, value, bias, scale)
    return read.view(prompts, heads, count, width).transpose(1, 2)


def _apart(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Let each completion's queries (P, H, T * G, d) read its prompt and itself. (P, T * G, H, d)."""
    prompts, heads, count, width = query.shape
    keys, group = key.shape[1], layout.group
    times, steps = heads // keys, count // group
    split = query.reshape(prompts, keys, times, steps, group, width).permute(0, 1, 4, 2, 3, 5)  # (P, K, G, r, T, d)
    grouped = split.reshape(prompts, keys * group, times * steps, width)
    read = _Attention.apply(grouped, _each(key, layout), _each(value, layout), layout.of_completions, scale)
    split = read.view(prompts, keys, group, times, steps, width).permute(0, 4, 2, 1, 3, 5)  # (P, T, G, K, r, d)
    return split.reshape(prompts, count, heads, width)


def _each(held: Tensor, layout: Layout) -> Tensor:
    """Give each completion what it reads, its prompt's and its own. (P, K, N, d) -> (P, K * G, L + tokens, d)."""
    prompts, keys, _, width = held.shape
    ahead = held[:, :, None, : layout.length].expand(-1, -1, layout.group, -1, -1)
    own = held[:, :, layout.length :].reshape(prompts, keys, layout.tokens, layout.group, width).transpose(2, 3)
    return torch.cat([ahead, own], dim=3).flatten(1, 2)


class _Attention(torch.autograd.Function):
    """softmax(scale q k^T + bias) v, with scores in float32. (P, B, r * n, d), (P, B, N, d) twice, (P, 1, n, N)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        ctx.scale = scale
        parts = list(_parts(query, key))
        if len(parts) == 1:
            return _shares(query, key, bias, scale).to(value.dtype) @ value
        read = torch.empty_like(query)
        for part in parts:
            read[part] = _shares(query[part], key[part], bias[part[0]], scale).to(value.dtype) @ value[part]
        return read

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias = ctx.saved_tensors
        of_query, of_key, of_value = (torch.empty_like(given) for given in (query, key, value))
        for part in _parts(query, key):
            shares, gradient = _shares(query[part], key[part], bias[part[0]], ctx.scale), gradients[0][part]
            of_value[part] = shares.to(value.dtype).mT @ gradient
            of_scores = (gradient @ value[part].mT).float()
            of_scores.sub_(torch.linalg.vecdot(of_scores, shares)[..., None]).mul_(shares).mul_(ctx.scale)
            narrow = of_scores.to(query.dtype)
            of_query[part], of_key[part] = narrow @ key[part], narrow.mT @ query[part]
        return of_query, of_key, of_value, None, None


def _shares(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Return what share of each key a query reads. (p, b, r * n, N)."""
    scores = (scale * query.float()) @ key.float().mT
    scores.unflatten(2, (-1, bias.shape[2])).add_(bias[:, :, None])
    return scores.softmax(-1)


def _parts(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield parts of the first two axes that hold at most ``LARGEST`` pairs, if single ones do."""
    prompts, beside, count, _ = query.shape
    pairs = count * key.shape[2]
    across = max(1, min(beside, LARGEST // pairs))
    down = max(1, LARGEST // (pairs * beside))
    for first in range(0, prompts, down):
        for begin in range(0, beside, across):
            yield slice(first, first + down), slice(begin, begin + across)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
