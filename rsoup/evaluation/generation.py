"""Complete the prompts of a sweep with one resident base model, a mixed adapter folded into its weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rsoup.adapters import Adapter
from rsoup.errors import AdapterError
from rsoup.evaluation.cache import Measured
from rsoup.models.language_model import LanguageModel, folded
from rsoup.models.sampling import generator_for, sample
from rsoup.recipe import EvaluationSection
from rsoup.tasks.loading import Example


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
    updates = adapter_updates(model, adapter) if adapter is not None else ()
    with torch.no_grad(), folded(updates):
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
            for index, text, length, end in zip(
                batch, model.decode(rows, kept), kept.sum(1).tolist(), ends, strict=True
            ):
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


def adapter_updates(model: LanguageModel, adapter: Adapter) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield the weights that an adapter changes and what it adds to them, in float32."""
    for name, layer in adapter.layers.items():
        module = _module(model, name, adapter.name)
        update = layer.scale * (_tensor(layer.up, model.device) @ _tensor(layer.down, model.device))  # (out, in)
        turned = layer.kind == "embedding" or not isinstance(module, nn.Linear)  # Conv1D keeps (in, out)
        yield _fitting(model, module, name, update.T if turned else update, adapter.name)
    for name, array in adapter.saved.items():
        module = _module(model, name.removesuffix(".weight"), adapter.name)
        yield _fitting(model, module, name, _tensor(array, model.device) - module.weight.float(), adapter.name)


def _module(model: LanguageModel, name: str, adapter: str) -> nn.Module:
    try:
        module: nn.Module = model.model.get_submodule(name)
    except AttributeError as problem:
        raise AdapterError(
            f"The adapter {adapter} changes {name}, which {model.name} does not have.",
            "Give the base model that the adapter was trained on.",
        ) from problem
    return module


def _fitting(
    model: LanguageModel, module: nn.Module, name: str, update: Tensor, adapter: str
) -> tuple[nn.Parameter, Tensor]:
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    if weight is model.head.weight and weight is model.model.get_input_embeddings().weight:
        raise AdapterError(
            f"The adapter {adapter} changes {name}, which {model.name} uses both for its input and its output.",
            "Untie the embeddings before training, or leave them out of the adapter.",
        )
    if weight.shape != update.shape:
        raise AdapterError(
            f"The adapter {adapter} has {tuple(update.shape)} for {name}, the base model {tuple(weight.shape)}.",
            "Give the base model that the adapter was trained on.",
        )
    return weight, update


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32)).to(device)
