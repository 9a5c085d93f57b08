"""Sampling completions, with the prompt's cache shared by its completions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsoup.models import packing
from rsoup.models.encoding import Encoded, encode
from rsoup.models.language_model import LanguageModel


@dataclass(frozen=True)
class Completions:
    """Token ids (P, G, T) and a mask that is true up to and including the end of each completion.

    ``states`` (P, G, T, d) are the hidden states that predicted the tokens, if they were asked for.
    """

    ids: Tensor
    mask: Tensor
    states: Tensor | None = None

    def of(self, rows: Sequence[int]) -> Completions:
        """Return the completions of some prompts, as long as the longest of them."""
        ids, mask = self.ids[list(rows)], self.mask[list(rows)]
        longest = int(mask.sum(-1).max())
        states = None if self.states is None else self.states[list(rows), :, :longest]
        return Completions(ids[..., :longest], mask[..., :longest], states)


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
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    cumulative = torch.softmax(logits, dim=-1).cumsum(-1)
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
    limits = torch.full((prompts, group), max_new_tokens, device=prompt_ids.device) if lengths is None else lengths
    encoded = encode(model, prompt_ids, prompt_mask, tokens=max_new_tokens, group=group, shared=shared)
    decoding = _Decoding(model, encoded, limits.clamp(max=max_new_tokens), stop_ids, keep_states=keep_states)
    pick = choose or _drawing(temperature, uniforms)

    def take() -> bool:
        return decoding.take(pick(decoding.logits(), decoding.alive, decoding.running, decoding.so_far()))

    goes_on = take()
    while model.anyone(goes_on=goes_on):
        if goes_on:
            decoding.advance()
            goes_on = take()
        else:
            model.idle()
    return decoding.completions()


def _drawing(temperature: float, uniforms: Tensor | None) -> Choose:
    """Return what picks tokens by ``draw``, with the random number of each completion and step."""

    def choose(logits: Tensor, prompts: Tensor, _running: Tensor, ids: Tensor) -> Tensor:
        uniform = None if uniforms is None else uniforms[prompts, :, ids.shape[2]].reshape(-1)
        return draw(logits, temperature, uniform)

    return choose


class _Decoding:
    """Completions on their way: the tokens so far of all P prompts, and the states of the n that still have rows."""

    def __init__(
        self, model: LanguageModel, encoded: Encoded, limits: Tensor, stop_ids: Sequence[int], *, keep_states: bool
    ) -> None:
        self._model, self._cache, self._prompt_mask = model, encoded.cache, encoded.mask
        self._limits, self._stops = limits, torch.tensor(list(stop_ids), dtype=torch.long, device=limits.device)
        prompts, self._group = limits.shape
        self._ids = limits.new_full((prompts, self._group, int(limits.max())), model.pad_id)  # (P, G, T)
        self._mask = torch.zeros_like(self._ids, dtype=torch.bool)
        self._state = encoded.last.expand(-1, self._group, -1)  # (n, G, d)
        self._states = self._state.new_zeros(*self._ids.shape, self._state.shape[-1]) if keep_states else None
        self._step = 0
        self.alive = torch.arange(prompts, device=limits.device)  # (n,)
        self.running = torch.ones_like(limits, dtype=torch.bool)  # (n, G)

    def logits(self) -> Tensor:
        """Return the logits of the next token. (n * G, V)."""
        with self._model.at_rows(self.alive):
            return self._model.logits(self._state.reshape(len(self.alive) * self._group, -1))

    def so_far(self) -> Tensor:
        """Return the tokens so far. (P, G, step)."""
        return self._ids[:, :, : self._step]

    def take(self, tokens: Tensor) -> bool:
        """Append tokens (n * G,) to the completions that run; tell whether any goes on."""
        tokens = torch.where(self.running, tokens.view(-1, self._group), self._model.pad_id)
        self._ids[self.alive, :, self._step], self._mask[self.alive, :, self._step] = tokens, self.running
        if self._states is not None:
            self._states[self.alive, :, self._step] = self._state
        self._step += 1
        self.running = self.running & ~torch.isin(tokens, self._stops) & (self._step < self._limits[self.alive])
        return bool(self.running.any())

    def advance(self) -> None:
        """Compute the states after the last tokens, of the prompts alone that go on if that pays for copying them."""
        unfinished = self.running.any(1)
        droppable = all(hasattr(layer, "batch_select_indices") for layer in self._cache.layers)  # no recurrent state
        if droppable and 2 * int(unfinished.sum()) <= len(self.alive):
            rows = unfinished.nonzero().squeeze(1)
            self._cache.batch_select_indices(self._model.cache_rows(rows, len(self.alive)))
            self.alive, self.running = self.alive[rows], self.running[rows]
        prompt_mask, tokens = self._prompt_mask[self.alive], self._ids[self.alive, :, self._step - 1]
        seen = self._model.row_mask(prompt_mask, self._group, self._step, queries=self._group)
        positions = packing.completion_positions(prompt_mask, self._group, self._step - 1, 1)
        with self._model.at_rows(self.alive):
            self._state = self._model.hidden_states(tokens, seen, positions, cache=self._cache)

    def completions(self) -> Completions:
        """Return what there is."""
        states = None if self._states is None else self._states[:, :, : self._step]
        return Completions(self.so_far(), self._mask[:, :, : self._step], states)
