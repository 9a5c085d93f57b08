"""A base and its experts in memory: what every request is answered with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import ModelError
from rsoup.evaluation.rows import applied_in_passing, row_weighted
from rsoup.models import packing
from rsoup.models.caching import RoomyCache
from rsoup.models.language_model import LanguageModel
from rsoup.models.probe import tolerance
from rsoup.models.rowwise import Method, Mix, RowWeights
from rsoup.serving.cache import RowsCache

KEPT = 32
"""Mixes kept materialised; they are as large as one adapter each."""
PROBE = ((5, 6, 7, 8), (9, 10))
"""Prompts that are tried before anything is served."""


class Served:
    """A base model and the experts that its rows mix; ``context`` is how many tokens it can read, None if unknown."""

    def __init__(
        self, model: LanguageModel, adapters: Mapping[str, Adapter], method: Method, context: int | None = None
    ) -> None:
        self.model, self.adapters, self.method, self.context = model, dict(adapters), method, context
        self.experts = row_weighted(model, list(self.adapters.values()), method)
        self.settles = model.model.dtype == torch.float32
        self._mixed: OrderedDict[Mix, Adapter | None] = OrderedDict()

    @torch.no_grad()
    def bytes_per_token(self) -> int:
        """Return the memory of a token's keys and values, as a short prompt has them."""
        cache, _ = self.encode(PROBE[:1], [Mix((0.0,) * len(self.adapters), 1.0)])
        held = [part for layer in cache.layers for part in (layer.keys, layer.values) if part is not None]
        return sum(part.shape[1] * part.shape[3] * part.element_size() for part in held)

    def encode(self, prompts: Sequence[Sequence[int]], mixes: Sequence[Mix]) -> tuple[RoomyCache, Tensor]:
        """Return the cache of prompts, one mix each, and the logits after them. (n, V)."""
        ids, mask = self.model.pad(prompts)
        cache = RoomyCache(ids.shape[1])
        with self.experts.rows(RowWeights.of(mixes, self.model.device)):
            hidden = self.model.hidden_states(ids, mask, packing.prompt_positions(mask), cache=cache)
            return cache, self.model.logits(hidden[:, -1])

    def advance(self, tokens: Sequence[int], lengths: Sequence[int], weights: RowWeights, cache: RowsCache) -> Tensor:
        """Append a token to each row, which has ``lengths`` already; return the logits after it. (R, V)."""
        device = self.model.device
        seen = torch.tensor(lengths, device=device)[:, None]
        width = int(max(lengths)) + 1
        mask = torch.arange(width, device=device) >= width - 1 - seen
        with self.experts.rows(weights):
            hidden = self.model.hidden_states(torch.tensor(tokens, device=device)[:, None], mask, seen, cache=cache)
            return self.model.logits(hidden[:, -1])

    def alone(self, tokens: Sequence[int], mix: Mix) -> Tensor:
        """Return the logits after a text from the materialised mix, folded, in a row of its own. (V,).

        They are those of an evaluation, whatever else is being answered.
        """
        row = torch.tensor([list(tokens)], device=self.model.device)
        mask = torch.ones_like(row, dtype=torch.bool)
        with applied_in_passing(self.model, self.mixed(mix)):
            hidden = self.model.hidden_states(row, mask, packing.prompt_positions(mask))
            return self.model.logits(hidden[:, -1])[0].float()

    def mixed(self, mix: Mix) -> Adapter | None:
        """Return a mix as one adapter, None for the base."""
        if mix not in self._mixed:
            used = {name: weight for name, weight in zip(self.adapters, mix.weights, strict=True) if weight}
            self._mixed[mix] = self._materialised(used, mix.base_weight) if used else None
            if len(self._mixed) > KEPT:
                self._mixed.popitem(last=False)
        self._mixed.move_to_end(mix)
        return self._mixed[mix]

    def _materialised(self, used: Mapping[str, float], base_weight: float) -> Adapter:
        return mixing.mix(
            [self.adapters[name] for name in used],
            list(used.values()),
            method=self.method,
            base_weight=base_weight,
            allow_extrapolation=True,  # requests are checked where they are read
            allow_different_starts=True,
            dtype="F32",  # rows of a batch are not rounded to the adapters' own
        ).adapter

    @torch.no_grad()
    def probe(self) -> None:
        """Raise ModelError if rows that join, leave and mix get other logits than texts that are alone."""
        count = len(self.adapters)
        mixes = [Mix(tuple(float(place == row % count) for place in range(count)) if count else ()) for row in range(2)]
        try:
            with self.experts:
                error, tolerated = self._probed(mixes)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as problem:
            raise ModelError(
                f"{self.model.name}: cannot be served row by row: {problem}.",
                "Use a decoder-only transformer; recurrent models are not supported.",
            ) from problem
        if not error <= tolerated:
            raise ModelError(
                f"{self.model.name}: rows of a batch get other logits than texts alone (by {error:.2g}).",
                "Evaluate one mix at a time: this model's rows depend on each other.",
            )

    def _probed(self, mixes: Sequence[Mix]) -> tuple[float, float]:
        """Return how far logits of rows of a batch are from those of texts alone, after two tokens, and may be."""
        each = [self.encode([[*prompt, 3, 4]], [mix])[1] for prompt, mix in zip(PROBE, mixes, strict=True)]
        alone = self._scores(torch.cat(each))
        cache, lengths = RowsCache(1 << 10), [len(prompt) for prompt in PROBE]
        for prompt, mix in zip(PROBE, mixes, strict=True):
            encoded, _ = self.encode([prompt], [mix])
            cache.join(encoded, torch.tensor([0], device=self.model.device), len(prompt), 16)
        weights = RowWeights.of(mixes, self.model.device)
        for step, token in enumerate((3, 4)):
            logits = self.advance([token] * 2, [length + step for length in lengths], weights, cache)
        error = float((self._scores(logits) - alone).abs().max().nan_to_num(float("inf")))
        return error, tolerance(alone) if self.settles else 1.0

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.float().log_softmax(-1)
