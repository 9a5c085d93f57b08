"""Passes that trainings share: the rows of all at once over one base, each row with its training's factors.

A training's rows are completed, and its completions judged, as if it were alone, but for the padding to the longest
rows of all, which its adapter and its dropout do not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rsoup.models.abreast import Abreast, Share, with_adapters
from rsoup.models.sampling import Completions
from rsoup.training.passes import Learning, Request, Sampling, Thinking, sample_for
from rsoup.training.policy import Policy, Thoughts
from rsoup.training.team import Team

Random = Callable[[], AbstractContextManager[None]]


class Joint:
    """Answers requests of one kind of several policies on one base."""

    def __init__(self, policies: Mapping[Policy, Random], team: Team) -> None:
        self._randoms, self._team = policies, team
        self._first = next(iter(policies))
        self._model = self._first.language_model
        self._layers = Abreast(self._model, self._first.peft, [policy.adapter for policy in policies])
        self._shares: list[Share] = []

    def answer(self, requests: Sequence[Request[Any]]) -> Sequence[Any]:
        """Return the answers to requests that are alike."""
        match requests[0]:
            case Sampling():
                return self._sample([own for own in requests if isinstance(own, Sampling)])
            case Thinking():
                return self._think([own for own in requests if isinstance(own, Thinking)])
            case _:
                return self._learn([own for own in requests if isinstance(own, Learning)])

    def _sample(self, requests: Sequence[Sampling]) -> list[Completions]:
        first = requests[0]
        ids, mask = self._prompts(requests)
        group, longest = first.uniforms.shape[1:]
        times = group if group > 1 and not self._model.packs(ids.shape[1] + longest) else 1  # rows of their own
        rows = {own.policy.adapter: times * len(own.prompt_ids) for own in requests}
        lengths = [own.lengths for own in requests if own.lengths is not None]
        with self._team.autocast():
            completions = sample_for(
                first,
                model=with_adapters(self._model, self._layers, rows),
                prompt_ids=ids,
                prompt_mask=mask,
                uniforms=torch.cat([own.uniforms for own in requests]).to(ids.device),
                lengths=torch.cat(lengths).to(ids.device) if lengths else None,
            )
        return [completions.of(range(begin, end)) for begin, end in _bounds(requests)]

    def _think(self, requests: Sequence[Thinking]) -> list[Thoughts]:
        first = requests[0]
        prompt_ids, prompt_mask = self._prompts(requests)
        tokens = max(own.ids.shape[2] for own in requests)
        ids = torch.cat([_padded(own.ids, tokens, self._model.pad_id) for own in requests])
        self._shares = self._shares_of(requests, prompt_ids.shape[1], tokens)
        with torch.set_grad_enabled(first.way == "learning"), self._guise(first), self._team.autocast():
            states = self._model.completion_states(prompt_ids, prompt_mask, ids)
            return [
                own.policy.thoughts(
                    states[begin:end, :, : own.ids.shape[2]],
                    own.ids,
                    own.temperature,
                    with_entropy=own.with_entropy,
                )
                for own, (begin, end) in zip(requests, _bounds(requests), strict=True)
            ]

    def _learn(self, requests: Sequence[Learning]) -> list[None]:
        with self._learning(checkpointing=requests[0].checkpointing):  # layers may be computed again
            torch.autograd.backward([own.loss for own in requests])
        return [None] * len(requests)

    @contextmanager
    def _learning(self, *, checkpointing: bool) -> Iterator[None]:
        with self._first.learning(gradient_checkpointing=checkpointing), self._layers.shared(self._shares):
            yield

    @contextmanager
    def _guise(self, asked: Thinking) -> Iterator[None]:
        if asked.way == "learning":
            with self._learning(checkpointing=asked.checkpointing):
                yield
        elif asked.way == "still":
            with self._layers.shared(self._shares):
                yield
        elif self._first.starts_at_base:
            yield
        else:  # all start where the first does
            rows = sum(share.rows for share in self._shares)
            with self._first.with_start_factors(), self._layers.shared([Share(self._first.adapter, rows)]):
                yield

    def _prompts(self, requests: Sequence[Sampling | Thinking]) -> tuple[Tensor, Tensor]:
        """Return the prompts of all, padded on the left to the longest. (P, L), (P, L)."""
        length = max(own.prompt_ids.shape[1] for own in requests)
        pads = [(length - own.prompt_ids.shape[1], 0) for own in requests]
        pad_id = self._model.pad_id
        ids = [
            torch.nn.functional.pad(own.prompt_ids, pad, value=pad_id) for own, pad in zip(requests, pads, strict=True)
        ]
        masks = [torch.nn.functional.pad(own.prompt_mask, pad) for own, pad in zip(requests, pads, strict=True)]
        return torch.cat(ids), torch.cat(masks)

    def _shares_of(self, requests: Sequence[Thinking], length: int, tokens: int) -> list[Share]:
        """Return whose the rows of a pass are, and the columns that they would have alone (``models.packing``)."""
        group = requests[0].ids.shape[1]
        across = group if self._model.packs(length + tokens) else 1
        shares = []
        for own in requests:
            begin, follow = length - own.prompt_ids.shape[1], (own.ids.shape[2] - 1) * across
            columns = slice(begin, length + follow)
            shares.append(Share(own.policy.adapter, len(own.ids), columns, self._randoms[own.policy]))
        return shares


def _bounds(requests: Sequence[Sampling | Thinking]) -> list[tuple[int, int]]:
    """Return where the rows of each begin and end."""
    ends = torch.tensor([0, *(len(own.prompt_ids) for own in requests)]).cumsum(0).tolist()
    return list(pairwise(ends))


def _padded(ids: Tensor, tokens: int, pad_id: int) -> Tensor:
    return torch.nn.functional.pad(ids, (0, tokens - ids.shape[2]), value=pad_id)
