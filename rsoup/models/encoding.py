"""Encoding prompts: what they begin with once, the rest in passes of like length, into a cache for what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from rsoup.models import packing
from rsoup.models.caching import RoomyCache
from rsoup.models.language_model import LanguageModel

PASS = 1024
"""Tokens of a pass: with more, matrix products get no faster and rows only longer padding."""


@dataclass(frozen=True)
class Encoded:
    """The cache of P prompts, its mask (P, L), and their last hidden states (P, 1, d)."""

    cache: DynamicCache
    mask: Tensor
    last: Tensor

    @property
    def nbytes(self) -> int:
        """The memory of the cache, with the room it has."""
        tensors = [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]
        return sum(int(tensor.untyped_storage().nbytes()) for tensor in tensors)


@torch.no_grad()
def encode(model: LanguageModel, ids: Tensor, mask: Tensor, *, tokens: int, group: int = 1, shared: int = 0) -> Encoded:
    """Encode left-padded prompts (P, L), with room in their cache for ``tokens`` tokens of ``group`` completions each.

    All of them begin with the same ``shared`` tokens, fewer than the shortest has; rows of several models share none.
    """
    if not model.packs(ids.shape[1] + tokens):
        cache = DynamicCache(config=model.config)
        with model.at_rows(torch.arange(len(ids), device=ids.device)):
            hidden = model.hidden_states(ids, mask, packing.prompt_positions(mask), cache=cache)
        return Encoded(cache, mask, hidden[:, -1:].clone())
    beginning = DynamicCache()
    if shared:
        common = ids[:1][mask[:1]][None, :shared]
        model.hidden_states(common, mask.new_ones(1, shared), torch.arange(shared, device=ids.device)[None], beginning)
    count, width = ids.shape
    size = width + group * tokens
    ids, mask = ids[:, shared:], (mask.cumsum(1) > shared)[:, shared:]
    full_mask = torch.cat([mask.new_ones(count, shared), mask], dim=1)
    parts = list(passes(mask.sum(1).tolist())) if model.shards is None else [list(range(count))]  # as many as others
    if len(parts) == 1:
        cache = RoomyCache(size)
        with model.at_rows(torch.arange(count, device=ids.device)):
            return Encoded(cache, full_mask, _encode(model, ids, mask, beginning, cache))
    everyone = len(model.cache_rows(torch.arange(count), count))
    cache, last = RoomyCache(size), []
    for part in parts:
        rows = torch.tensor(part, device=ids.device)
        own = mask[rows]
        length = int(own.sum(1).max())
        into = RoomyCache(shared + length)
        with model.at_rows(rows):
            last.append(_encode(model, ids[rows, -length:], own[:, -length:], beginning, into))
        cache.place(into, model.cache_rows(rows, count), everyone, shared, width)
    order = torch.tensor([row for part in parts for row in part], device=ids.device).argsort()
    return Encoded(cache, full_mask, torch.cat(last)[order])


def _encode(model: LanguageModel, ids: Tensor, mask: Tensor, beginning: DynamicCache, cache: DynamicCache) -> Tensor:
    """Encode what follows a beginning into an empty cache; return the last hidden states. (B, N) -> (B, 1, d)."""
    count, shared = len(ids), beginning.get_seq_length()
    for index, layer in enumerate(beginning.layers):
        cache.update(layer.keys.repeat_interleave(count, 0), layer.values.repeat_interleave(count, 0), index)
    mask = torch.cat([mask.new_ones(count, shared), mask], dim=1)
    positions = packing.prompt_positions(mask)[:, shared:]
    return model.hidden_states(ids, mask, positions, cache=cache)[:, -1:].clone()


def passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of rows of like length, up to ``PASS`` tokens at once."""
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and lengths[row] * (len(part) + 1) > PASS:
            yield part
            part = []
        part.append(row)
    yield part
