"""Several completions of a prompt in one row, so that the prompt is encoded once.

A row holds a left-padded prompt and then, token by token, its ``G`` completions::

    [pad pad p1 p2 p3 | a1 b1 c1 | a2 b2 c2 | ...]        G = 3 completions a, b, c

The attention mask lets a completion token see the prompt and the earlier tokens of its own completion only, and
its position continues the prompt's, so hidden states and gradients equal those of separate rows. With one
completion per prompt the row is an ordinary causal row and gets an ordinary two-dimensional mask. The idea is
known as Prefix Grouper (arXiv 2506.05433); the same layout serves here for sampling, where a decoding step feeds
one token of each of the ``G`` completions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prompt_positions(prompt_mask: Tensor) -> Tensor:
    """Return the position of each token of left-padded prompts; padding gets 0. (P, L) -> (P, L)."""
    return (prompt_mask.long().cumsum(-1) - 1).clamp(min=0)


def completion_positions(prompt_mask: Tensor, group: int, first: int, count: int) -> Tensor:
    """Return the positions of tokens ``first .. first + count - 1`` of every completion. (P, count * G)."""
    steps = torch.arange(first, first + count, device=prompt_mask.device).repeat_interleave(group)
    return prompt_mask.sum(-1, keepdim=True) + steps


def attention_mask(prompt_mask: Tensor, group: int, tokens: int, *, queries: int | None = None) -> Tensor:
    """Return the mask of rows that hold a prompt and ``tokens`` tokens of each completion.

    ``prompt_mask`` is (P, L), true on real tokens. Without ``queries`` every token of the row is a query; with it,
    only the last ``queries`` tokens of the row are (the earlier ones lie in a cache). Returns (P, L + tokens) if
    ``group`` is 1, else (P, 1, queries, L + tokens * G) with true where a query may look.
    """
    prompts, length = prompt_mask.shape
    if group == 1:
        return torch.cat([prompt_mask, prompt_mask.new_ones(prompts, tokens)], dim=1)
    device = prompt_mask.device
    size = length + tokens * group
    index = torch.arange(size, device=device)
    member = torch.where(index < length, -1, (index - length) % group)
    query = index[size - (queries or size) :]
    causal = index <= query[:, None]  # (queries, size): the row's order is also the order in time
    own = (member == -1) | (member == member[query][:, None])
    valid = torch.cat([prompt_mask, prompt_mask.new_ones(prompts, tokens * group)], dim=1)
    allowed = (causal & own) & valid[:, None, :]
    allowed = allowed | (index == query[:, None])  # padding sees itself: a row with nothing to see would be NaN
    return allowed[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a four-dimensional boolean mask into one to be added to attention scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def pack(prompt_ids: Tensor, completion_ids: Tensor) -> Tensor:
    """Put prompts (P, L) and all but the last token of their completions (P, G, T) into rows (P, L + (T - 1) * G)."""
    prompts = len(prompt_ids)
    return torch.cat([prompt_ids, completion_ids[:, :, :-1].transpose(1, 2).reshape(prompts, -1)], dim=1)


def separate(rows: Tensor, group: int) -> Tensor:
    """Repeat each prompt for each of its completions, to be rows of their own. (P, ...) -> (P * G, ...)."""
    return rows.repeat_interleave(group, dim=0)


def unpack(hidden: Tensor, length: int, group: int) -> Tensor:
    """Pick from rows (P, L + (T - 1) * G, d) the states that predict each completion token: (P, G, T, d)."""
    prompts, _, width = hidden.shape
    first = hidden[:, length - 1, None, None].expand(prompts, group, 1, width)
    rest = hidden[:, length:].reshape(prompts, -1, group, width).transpose(1, 2)
    return torch.cat([first, rest], dim=2)
