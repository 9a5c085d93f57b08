"""Sampling completions, with the prompt's cache shared by its completions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.models import packing
from rsoup.models.encoding import encode
from rsoup.models.language_model import LanguageModel


@dataclass(frozen=True)
class Completions:
    """Token ids (P, G, T) and a mask that is true up to and including the end of each completion.

    ``states`` (P, G, T, d) are the hidden states that predicted the tokens, if they were asked for.
    """

    ids: Tensor
    mask: Tensor
    states: Tensor | None = None


Choose = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Picks tokens: f(logits (n * G, V), prompts (n,), running (n, G), ids so far (P, G, step)) -> (n * G,)."""


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
    group: int = 1,
    choose: Choose | None = None,
    keep_states: bool = False,
    shared: int = 0,
) -> Completions:
    """Complete left-padded prompts (P, L).

    What all prompts begin with, ``shared`` tokens, is encoded once if that is said.

    ``uniforms`` (P, G, max_new_tokens) are the random numbers of each token and set the group size G; without them
    decoding is greedy and G is 1, unless ``choose`` picks the tokens of ``group`` completions. A completion ends after
    ``lengths`` (P, G) tokens or after a token of ``stop_ids``, and is padded with ``model.pad_id``.
    """
    prompts, length = prompt_mask.shape
    group = group if uniforms is None else uniforms.shape[1]
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
    ids = prompt_ids.new_full((prompts, group, max_new_tokens), model.pad_id)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    encoded = encode(model, prompt_ids, prompt_mask, tokens=max_new_tokens, group=group, shared=shared)
    cache, prompt_mask = encoded.cache, encoded.mask
    state = encoded.last.expand(-1, group, -1)  # (P, G, d)
    states = state.new_zeros(prompts, group, max_new_tokens, state.shape[-1]) if keep_states else None
    alive = torch.arange(prompts, device=prompt_ids.device)  # the prompts that still have rows
    running = torch.ones_like(limit, dtype=torch.bool)
    step = 0
    for step in range(max_new_tokens):
        logits = model.logits(state.reshape(len(alive) * group, -1))
        if choose is not None:
            tokens = choose(logits, alive, running, ids[:, :, :step])
        else:
            uniform = None if uniforms is None else uniforms[alive, :, step].reshape(-1)
            tokens = draw(logits, temperature, uniform)
        tokens = torch.where(running, tokens.view(-1, group), model.pad_id)
        ids[alive, :, step], mask[alive, :, step] = tokens, running
        if states is not None:
            states[alive, :, step] = state
        running = running & ~torch.isin(tokens, stops) & (step + 1 < limit[alive])
        unfinished = running.any(1)
        if step + 1 == max_new_tokens or not bool(unfinished.any()):
            break
        if 2 * int(unfinished.sum()) <= len(alive):  # going on with the rest alone pays for copying its cache
            cache.batch_select_indices(model.cache_rows(unfinished.nonzero().squeeze(1), len(alive)))
            alive, running, tokens = alive[unfinished], running[unfinished], tokens[unfinished]
        seen = packing.attention_mask(prompt_mask[alive], group, step + 1, queries=group)
        positions = packing.completion_positions(prompt_mask[alive], group, step, 1)
        state = model.hidden_states(tokens, seen, positions, cache=cache)
    used = step + 1
    return Completions(ids[:, :, :used], mask[:, :, :used], None if states is None else states[:, :, :used])
