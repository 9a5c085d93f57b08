"""Complete the prompts of a sweep with one resident base model, changed in place from point to point."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from rsoup.adapters import Adapter
from rsoup.evaluation.applying import Change, applied, side_by_side
from rsoup.evaluation.cache import Completion
from rsoup.evaluation.decoding import Chooser
from rsoup.evaluation.ensembles import Rule, ensemble_of
from rsoup.evaluation.measures import Reference, divergence, surprise
from rsoup.evaluation.memory import Batches, automatic_batch_size, free_bytes
from rsoup.evaluation.whole import turned_into
from rsoup.mixing import Soup
from rsoup.mixing.checkpoints import Mixture
from rsoup.models.language_model import LanguageModel, masked_tokens
from rsoup.models.sampling import Completions, generator_for, sample
from rsoup.recipe import EvaluationSection
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses, unfinished_thoughts

KEPT_SHARE = 1 / 8
"""Of the free memory, for what the start makes of the prompts, which is the same at every point."""
DECIMALS = 6

Point = TypeVar("Point", bound=Hashable)

SHORTEST_BEGINNING = 4
"""Tokens that all prompts begin with from which on they are encoded once instead of in every row."""


@dataclass(frozen=True)
class Subject:
    """What completes the prompts of a batch: the resident model, or several on it, under a change."""

    model: LanguageModel
    change: AbstractContextManager[Any]

    @property
    def uniform(self) -> bool:
        """Whether it is the same to every row of a batch, so that beginnings of prompts may be shared."""
        return True

    def alone(self, _row: int) -> AbstractContextManager[None]:
        """Be, within ``change``, what a row of the batch is, as exactly as by itself."""
        return nullcontext()

    def parts(self, rows: int) -> list[tuple[Sequence[int], AbstractContextManager[Any]]]:
        """Return which of a batch's rows are of one model, and what the base has to be for that."""
        return [(range(rows), self.change)]


class Resident:
    """The base model in memory, with what it takes to turn it into any point and to measure what that says."""

    def __init__(
        self,
        model: LanguageModel,
        settings: EvaluationSection,
        seed: int,
        start: Adapter | None,
        examples: Sequence[Example],
        say: Callable[[str], None],
        *,
        second: bool = False,
    ) -> None:
        """Make room for the prompts, and beside the base for a ``second`` model of its size."""
        self.model, self._settings, self._seed = model, settings, seed
        longest = self._longest = max(len(example.tokens) for example in examples)
        self._shared = shared_tokens([example.tokens for example in examples])
        size = settings.batch_size
        if size == "auto":
            free = free_bytes(model.device) - (model.model.get_memory_footprint() if second else 0)
            size = automatic_batch_size(model, longest, settings.max_new_tokens, settings.samples, free)
        self._batches = Batches(size, say)
        budget = int(KEPT_SHARE * free_bytes(model.device))
        self._start = Reference(model, applied(model, start), settings.max_new_tokens, budget)
        self._base = Reference(model, Change(), settings.max_new_tokens, budget) if start is not None else self._start

    def subject(self, mixed: Soup | Mixture | None) -> Subject:
        """Return base plus mixed adapter, or a mixed model.

        Where nothing is measured against the base, the mix takes its place in memory, until another does.
        """
        if isinstance(mixed, Mixture):
            return Subject(self.model, turned_into(self.model, mixed, keep_base=self._settings.measures))
        return Subject(self.model, applied(self.model, mixed.adapter if mixed else None))

    def ensemble(self, rule: Rule, adapters: Mapping[str, Adapter], weights: Mapping[str, float]) -> Subject:
        """Return the mix of what several adapters predict."""
        own = [adapters[name] for name in weights]
        return Subject(ensemble_of(self.model, rule, tuple(weights.values())), side_by_side(self.model, own))

    def complete(
        self, subject: Subject, examples: Sequence[Example], on_prompt: Callable[[], None]
    ) -> dict[str, list[Completion]]:
        """Complete prompts and measure the completions, by the id of the example; like lengths share a batch."""
        return self.complete_together(lambda _: subject, {None: examples}, lambda _: on_prompt())[None]

    def complete_together(
        self,
        subject_of: Callable[[Sequence[Point]], Subject],
        work: Mapping[Point, Sequence[Example]],
        on_prompt: Callable[[Point], None],
    ) -> dict[Point, dict[str, list[Completion]]]:
        """Complete the prompts of several points in batches of rows of any; ``subject_of`` makes what completes them.

        As ``complete`` does for each, but for what prompts begin with: that is encoded in every row.
        """
        done: dict[Point, dict[str, list[Completion]]] = {point: {} for point in work}
        pairs = [(point, example) for point, examples in work.items() for example in examples]
        pairs.sort(key=lambda pair: (len(pair[1].tokens), pair[1].id))

        def function(batch: Sequence[tuple[Point, Example]]) -> list[list[Completion]]:
            subject = subject_of([point for point, _ in batch])
            rows: list[list[Completion]] = self._batch(subject, [example for _, example in batch])
            return rows

        for batch, rows in self._batches.work(pairs, function):
            for (point, example), row in zip(batch, rows, strict=True):
                done[point][example.id] = row
                on_prompt(point)
        return done

    @property
    def batch_size(self) -> int:
        """The prompts that are completed at once."""
        return self._batches.size

    @property
    def packs(self) -> bool:
        """Tell whether all completions of a prompt are made in one row."""
        return self._settings.samples == 1 or self.model.packs(self._longest + self._settings.max_new_tokens)

    @torch.no_grad()
    def _batch(self, subject: Subject, examples: Sequence[Example]) -> list[list[Completion]]:
        settings, each = self._settings, self._settings.samples
        prompts = [example.tokens for example in examples]
        randoms = [[self._random(example, number) for number in range(each)] for example in examples]
        group = each
        if each > 1 and not subject.model.packs(max(map(len, prompts)) + settings.max_new_tokens):
            prompts = [prompt for prompt in prompts for _ in range(each)]
            randoms, group = [[random] for row in randoms for random in row], 1
        ids, mask = subject.model.pad(prompts)
        with subject.change:
            completions = sample(
                subject.model,
                ids,
                mask,
                shared=self._shared if subject.uniform else 0,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                stop_ids=subject.model.stop_ids,
                group=group,
                choose=Chooser(subject.model, prompts, settings.temperature, randoms, subject.alone),
                keep_states=settings.measures,
            )
        kl, surprises = self._measured(subject, prompts, completions) if settings.measures else (None, None)
        rows = self._rows([example for example in examples for _ in range(each)], completions, kl, surprises)
        return [rows[start : start + each] for start in range(0, len(rows), each)]

    def _measured(
        self, subject: Subject, prompts: Sequence[Sequence[int]], completions: Completions
    ) -> tuple[Tensor, Tensor]:
        """Return the divergence from the start and the surprise of the base, per completion."""
        temperature = self._settings.temperature or 1.0
        order: list[int] = []
        found: list[Tensor] = []
        for rows, change in subject.parts(len(prompts)):
            own = completions if len(rows) == len(prompts) else completions.of(rows)
            asked = [prompts[row] for row in rows]
            read = self._start.states(asked, own.ids)
            kl, surprises = divergence(subject.model, change, self._start, own, read, temperature)
            if self._base is not self._start:
                surprises = surprise(self._base, own, self._base.states(asked, own.ids))
            order += rows
            found.append(torch.stack([kl, surprises]))
        both = torch.cat(found, dim=1)[:, torch.tensor(order).argsort()]
        return both[0], both[1]

    def _rows(
        self, examples: Sequence[Example], completions: Completions, kl: Tensor | None, surprises: Tensor | None
    ) -> list[Completion]:
        """Return the completions, one for each example."""
        ids, mask = completions.ids.flatten(0, 1), completions.mask.flatten(0, 1)
        tokens = masked_tokens(ids, mask)
        return [
            Completion(text=text, tokens=tuple(row), unfinished=open_, ended_by_eos=ended, kl=own, surprise=base)
            for text, row, open_, ended, own, base in zip(
                read_responses(self.model.tokenizer, examples, tokens),
                tokens,
                unfinished_thoughts(self.model.tokenizer, examples, tokens),
                self.model.ends(ids, mask).tolist(),
                _numbers(kl, len(tokens)),
                _numbers(surprises, len(tokens)),
                strict=True,
            )
        ]

    def _random(self, example: Example, number: int) -> torch.Generator:
        """Return the random numbers of a completion: the same at every point and in any batch."""
        seed = generator_for(self._seed, f"evaluation/{example.id}", number).initial_seed()
        return torch.Generator(self.model.device).manual_seed(seed)


def shared_tokens(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens several prompts begin with, each with one to follow; 0 if that is hardly any."""
    first, last = min(prompts), max(prompts)
    count = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    count = min(count, min(map(len, prompts)) - 1)
    return count if len(prompts) > 1 and count >= SHORTEST_BEGINNING else 0


def _numbers(values: Tensor | None, count: int) -> list[float | None]:
    if values is None:
        return [None] * count
    return [round(value, DECIMALS) for value in values.flatten().tolist()]
