"""Pick tokens so that a completion depends on its prompt, its model and its random numbers, and on nothing else.

The rows of a batch disturb each other by rounding: the same row has logits that differ in the last digits from one
batch to another. Where that could decide, the row is computed again by itself, so its token is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rsoup.models import packing
from rsoup.models.language_model import LanguageModel

CLOSE = 1e-5
"""A lead, as a share of the largest logit, below which rounding in float32 might decide; batches differ by 1.3e-6."""
APART = 1e-2
"""A lead that is beyond doubt whatever the logits."""
COLDEST = 1e-30
"""The temperature below which a lower one changes nothing: the likeliest token has all the odds."""


class Chooser:
    """Picks the likeliest token, or draws one by a race with the random numbers of each completion.

    The race adds noise -log(-log u) to log-probabilities and takes the largest (Gumbel 1954): it draws from the
    softmax. With the same noise, models that nearly agree nearly always draw the same token, whatever the order of
    the vocabulary, so that differences between models are not those of their luck.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        temperature: float,
        randoms: Sequence[Sequence[torch.Generator]],
        alone: Callable[[int], AbstractContextManager[Any]] = lambda _row: nullcontext(),
    ) -> None:
        """Pick for prompts, a row each; within ``alone(row)`` the model is what that row is."""
        self._model, self._prompts, self._turned = model, prompts, alone
        self._temperature, self._randoms = temperature, randoms
        self._settles = model.model.dtype == torch.float32

    def __call__(self, logits: Tensor, prompts: Tensor, running: Tensor, ids: Tensor) -> Tensor:
        """Pick a token per row. (n * G, V), (n,), (n, G), (P, G, step) -> (n * G,)."""
        group = running.shape[1]
        scores = logits.float()  # (n * G, V)
        noise = self._noise(scores, prompts) if self._temperature else None
        if noise is not None:
            scores = heated(scores, self._temperature) + noise
        if not self._settles:
            return scores.argmax(-1)
        best = scores.topk(2)
        tokens = best.indices[:, 0].clone()
        lead = (best.values[:, 0] - best.values[:, 1]) * (
            max(self._temperature, COLDEST) if self._temperature else 1.0
        )  # in logits
        for place in ((lead < APART) & running.flatten()).nonzero().flatten().tolist():
            if lead[place] >= CLOSE * logits[place].abs().max():
                continue
            prompt, member = int(prompts[place // group]), place % group
            alone = self._alone(prompt, ids[prompt, member])
            tokens[place] = (alone if noise is None else heated(alone, self._temperature) + noise[place]).argmax()
        return tokens

    def _alone(self, prompt: int, ids: Tensor) -> Tensor:
        """Return the logits of the next token from a row of its own, without padding or cache. (V,)."""
        row = torch.tensor([*self._prompts[prompt]], device=ids.device)
        row = torch.cat([row, ids])[None]
        mask = torch.ones_like(row, dtype=torch.bool)
        with self._turned(prompt):
            hidden = self._model.hidden_states(row, mask, packing.prompt_positions(mask))
            return self._model.logits(hidden[:, -1])[0].float()

    def _noise(self, scores: Tensor, prompts: Tensor) -> Tensor:
        """Return the next random numbers of each completion; each has a generator of its own. (n * G, V)."""
        rows = [
            torch.rand(scores.shape[-1], generator=random, device=scores.device)
            for prompt in prompts.tolist()
            for random in self._randoms[prompt]
        ]
        return gumbel(torch.stack(rows))


def heated(logits: Tensor, temperature: float) -> Tensor:
    """Return logits over a temperature, the largest of each row 0: float32 holds them however low that is. (..., V)."""
    scores = logits.float()
    return (scores - scores.amax(-1, keepdim=True)) / max(temperature, COLDEST)


def gumbel(uniforms: Tensor) -> Tensor:
    """Return what is added to log-probabilities to race for a token, from numbers in [0, 1)."""
    return -torch.log(-torch.log(uniforms.clamp(min=torch.finfo(torch.float32).tiny)))
