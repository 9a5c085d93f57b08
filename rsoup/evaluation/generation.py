"""Complete the prompts of a sweep with one resident base model, a mixed adapter folded into its weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from rsoup.adapters import Adapter
from rsoup.evaluation.applying import applied
from rsoup.evaluation.cache import Measured
from rsoup.models.language_model import LanguageModel, masked_tokens
from rsoup.models.sampling import generator_for, sample
from rsoup.recipe import EvaluationSection
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses


def measure(
    model: LanguageModel,
    adapter: Adapter | None,
    examples: Sequence[Example],
    settings: EvaluationSection,
    seed: int,
    on_batch: Callable[[], None],
) -> Measured:
    """Complete every prompt with base plus adapter; prompts of similar length share a batch."""
    began = time.perf_counter()
    count = len(examples)
    texts, tokens, ended = [""] * count, [0] * count, [False] * count
    order = sorted(range(count), key=lambda index: len(examples[index].tokens))
    stops = torch.tensor(model.stop_ids, device=model.device)
    with torch.no_grad(), applied(model, adapter) if adapter is not None else nullcontext():
        for start in range(0, count, settings.batch_size):
            batch = order[start : start + settings.batch_size]
            ids, mask = model.pad([examples[index].tokens for index in batch])
            completions = sample(
                model,
                ids,
                mask,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                uniforms=_uniforms([examples[index] for index in batch], settings, seed, model.device),
                stop_ids=model.stop_ids,
            )
            rows, kept = completions.ids[:, 0], completions.mask[:, 0]
            last = rows.gather(1, kept.sum(1, keepdim=True) - 1).squeeze(1)
            ends = torch.isin(last, stops).tolist()
            read = read_responses(model.tokenizer, [examples[index] for index in batch], masked_tokens(rows, kept))
            for index, text, length, end in zip(batch, read, kept.sum(1).tolist(), ends, strict=True):
                texts[index], tokens[index], ended[index] = text, length, end
            on_batch()
    return Measured(texts, tokens, ended, round(time.perf_counter() - began, 3))


def _uniforms(
    examples: Sequence[Example], settings: EvaluationSection, seed: int, device: torch.device
) -> Tensor | None:
    """Return the random numbers of each prompt, the same at every point of the sweep and in any batch."""
    if settings.temperature == 0:
        return None
    rows = [
        torch.rand(1, settings.max_new_tokens, generator=generator_for(seed, f"evaluation/{example.id}", 0))
        for example in examples
    ]
    return torch.stack(rows).to(device)
