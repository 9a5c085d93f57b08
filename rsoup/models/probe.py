"""Find out, on a few tokens, whether a model computes what rsoup takes for granted."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rsoup.errors import ModelError, first_line
from rsoup.models import attention, packing
from rsoup.models.encoding import encode
from rsoup.models.language_model import LanguageModel

PROMPTS = (5, 3)
"""Lengths of the prompts tried: the shorter one is padded."""
GROUP, TOKENS = 2, 3


@torch.no_grad()
def probe(model: LanguageModel) -> LanguageModel:
    """Return the model with ``shares_prefix`` as it really is; ModelError if even separate rows come out wrong.

    Padded rows, cached decoding and the output layer are compared with the model's own forward pass on bare rows.
    """
    usual = model.model.config._attn_implementation
    exact = model.model.dtype == torch.float32
    quantised = getattr(model.model, "is_quantized", False)  # 8-bit products depend on the rows beside them
    rows = [_tokens(model, length, index) for index, length in enumerate(PROMPTS)]
    completions = torch.stack([_tokens(model, TOKENS, 7 + index) for index in range(len(PROMPTS) * GROUP)])
    completions = completions.view(len(PROMPTS), GROUP, TOKENS)
    try:
        expected = _expected(model, rows, completions)
        tolerated = 4.0 if quantised else tolerance(expected) if exact else 1.0
        error = max(_error(one, expected) for one in _computed(replace(model, shares_prefix=False), rows, completions))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as problem:
        raise ModelError(
            f"{model.name}: cannot be run with padding and a cache: {first_line(problem)}.",
            "Use a decoder-only transformer; recurrent models are not supported.",
        ) from problem
    if error > tolerated and _finishes_otherwise(model, rows[0], tolerated):
        raise ModelError(
            f"{model.name}: its logits are not those of its output layer on its last hidden states.",
            "Use a decoder-only transformer; how this one comes to its logits is not known to rsoup.",
        )
    if error > tolerated:
        raise ModelError(
            f"{model.name}: padded or cached rows give other log-probabilities than bare ones (by {error:.2g}).",
            "Use a decoder-only transformer whose outputs do not depend on padding.",
        )
    most = max(0.4, 2 * error) if quantised else 1e-3 if exact else 0.4
    kinds = [usual] if model.device.type != "cpu" else [attention.NAME, usual]
    for kind in kinds:
        _attend_as(model, kind)
        if _packed_error(model, rows, completions, expected) <= most:
            return replace(model, shares_prefix=True)
    return replace(model, shares_prefix=False)


def _packed_error(model: LanguageModel, rows: list[Tensor], completions: Tensor, expected: Tensor) -> float:
    try:
        return max(_error(one, expected) for one in _computed(model, rows, completions))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        return float("inf")


def _attend_as(model: LanguageModel, name: str | None) -> None:
    """Give a model another kind of attention, if it can be given any."""
    inner = model.model
    if name != inner.config._attn_implementation and inner._can_set_attn_implementation():
        inner.set_attn_implementation(name)


def _finishes_otherwise(model: LanguageModel, row: Tensor, tolerated: float) -> bool:
    """Tell whether the model's own logits of a bare row are others than those of its hidden states."""
    own = model.model(input_ids=row[None], use_cache=False).logits[0]
    hidden = model.decoder(input_ids=row[None], use_cache=False).last_hidden_state[0]
    return not _error(model.logits(hidden).float(), own.float().cpu()) <= tolerated


def tolerance(scores: Tensor) -> float:
    """Return how far computations in float32 may be apart: a share of what tells the scores of a small model apart."""
    return max(1e-4, min(1e-2, 1e-3 * float(scores.max() - scores.min())))


def _tokens(model: LanguageModel, count: int, start: int) -> Tensor:
    """Return some ordinary token ids."""
    size = model.head.weight.shape[0]
    return (torch.arange(count, device=model.device) * 31 + start * 17 + 5) % size


def _expected(model: LanguageModel, rows: list[Tensor], completions: Tensor) -> Tensor:
    """Return the completions' log-probabilities from the model's own forward pass, row by row. (P, G, T)."""
    result = torch.empty(completions.shape)
    for prompt, row in enumerate(rows):
        for member in range(GROUP):
            completion = completions[prompt, member]
            logits = model.model(input_ids=torch.cat([row, completion])[None], use_cache=False).logits[0]
            logprobs = logits[len(row) - 1 : -1].float().log_softmax(-1)
            result[prompt, member] = logprobs.gather(-1, completion[:, None])[:, 0].cpu()
    return result


def _computed(model: LanguageModel, rows: list[Tensor], completions: Tensor) -> list[Tensor]:
    """Return the same log-probabilities computed at once, and token by token with a cache."""
    ids, mask = model.pad([row.tolist() for row in rows])
    states = model.completion_states(ids, mask, completions)
    group = GROUP
    if not model.packs(ids.shape[1] + TOKENS):
        ids, mask, group = packing.separate(ids, GROUP), packing.separate(mask, GROUP), 1
    encoded = encode(model, ids, mask, tokens=TOKENS, group=group)
    cached = [encoded.last.expand(-1, group, -1)]
    for step in range(TOKENS - 1):
        seen = model.row_mask(mask, group, step + 1, queries=group)
        positions = packing.completion_positions(mask, group, step, 1)
        tokens = completions[..., step].reshape(len(ids), group)
        cached.append(model.hidden_states(tokens, seen, positions, cache=encoded.cache))
    stepwise = torch.stack(cached, dim=2).view(states.shape)
    return [model.logprobs(states, completions, 1.0), model.logprobs(stepwise, completions, 1.0)]


def _error(computed: Tensor, expected: Tensor) -> float:
    return float((computed.cpu() - expected).abs().max().nan_to_num(float("inf")))
