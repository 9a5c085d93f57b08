"""Sampling completions, with the prompt's cache shared by its completions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.models import packing
from rsoup.models.language_model import LanguageModel


@dataclass(frozen=True)
class Completions:
    """Token ids (P, G, T) and a mask that is true up to and including the end of each completion."""

    ids: Tensor
    mask: Tensor


def generator_for(seed: int, purpose: str, index: int) -> torch.Generator:
    """Return a random generator that depends on its arguments alone, so that a resumed run draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def draw(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """Draw a token per row: the likeliest at temperature 0, else by inverting the distribution function at ``uniform``.

    (n, V), (n,) -> (n,). One uniform number per row makes a row's draw independent of the rows beside it.
    """
    if temperature == 0 or uniform is None:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(-1)
    threshold = uniform[:, None].to(cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def sample(
    model: LanguageModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    max_new_tokens: int,
    temperature: float,
    uniforms: Tensor | None = None,
    lengths: Tensor | None = None,
    stop_ids: Sequence[int] = (),
) -> Completions:
    """Complete left-padded prompts (P, L).

    ``uniforms`` (P, G, max_new_tokens) are the random numbers of each token and set the group size G; without them
    decoding is greedy and G is 1. A completion ends after ``lengths`` (P, G) tokens or after a token of
    ``stop_ids``, and is padded with ``model.pad_id``.
    """
    prompts, length = prompt_ids.shape
    group = 1 if uniforms is None else uniforms.shape[1]
    if uniforms is not None and group > 1 and not model.packs(length + max_new_tokens):
        rows = sample(
            model,
            packing.separate(prompt_ids, group),
            packing.separate(prompt_mask, group),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            uniforms=uniforms.flatten(0, 1)[:, None],
            lengths=None if lengths is None else lengths.flatten()[:, None],
            stop_ids=stop_ids,
        )
        return Completions(rows.ids.view(prompts, group, -1), rows.mask.view(prompts, group, -1))
    limit = torch.full((prompts, group), max_new_tokens, device=prompt_ids.device) if lengths is None else lengths
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=prompt_ids.device)
    cache = model.new_cache(group)
    hidden = model.hidden_states(
        prompt_ids, prompt_mask, packing.prompt_positions(prompt_mask), cache=cache
    )  # (P, L, d)
    state = hidden[:, -1:].expand(-1, group, -1)  # (P, G, d)
    running = torch.ones_like(limit, dtype=torch.bool)
    ids, mask = [], []
    for step in range(max_new_tokens):
        uniform = None if uniforms is None else uniforms[:, :, step].reshape(-1)
        tokens = draw(model.logits(state.reshape(prompts * group, -1)), temperature, uniform).view(prompts, group)
        tokens = torch.where(running, tokens, model.pad_id)
        ids.append(tokens)
        mask.append(running)
        running = running & ~torch.isin(tokens, stops) & (step + 1 < limit)
        if step + 1 == max_new_tokens or not bool(running.any()):
            break
        seen = packing.attention_mask(prompt_mask, group, step + 1, queries=group)
        positions = packing.completion_positions(prompt_mask, group, step, 1)
        state = model.hidden_states(tokens, seen, positions, cache=cache)
    return Completions(torch.stack(ids, dim=-1), torch.stack(mask, dim=-1))
