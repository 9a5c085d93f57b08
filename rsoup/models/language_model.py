"""A causal language model as rsoup uses it: hidden states, logits, and weights that can be folded and restored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rsoup.errors import ModelError
from rsoup.models import packing
from rsoup.models.logprobs import token_logprobs

LOGIT_SCALES = {"logit_scale": 1, "logits_scaling": -1}
"""Configuration keys of factors on the logits, and whether they multiply (1) or divide (-1)."""


@dataclass(frozen=True)
class LanguageModel:
    """A transformers causal model, its tokenizer, and where it came from.

    ``name`` is what the user calls the model, ``path`` what transformers loads, ``sha256`` of its weights where
    they are local files.
    """

    model: Any
    tokenizer: Any
    name: str
    path: str
    sha256: str | None

    @property
    def config(self) -> Any:
        """The configuration of the text part of the model."""
        return self.model.config.get_text_config()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def head(self) -> nn.Linear:
        """The linear layer from hidden states to logits."""
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    @property
    def pad_id(self) -> int:
        """The token that fills rows; it is always masked."""
        pad: int | None = self.tokenizer.pad_token_id
        return pad if pad is not None else self.stop_ids[0]

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a completion."""
        eos = self.model.generation_config.eos_token_id
        if eos is None:
            eos = self.tokenizer.eos_token_id
        if eos is None:
            return []
        return list(eos) if isinstance(eos, list) else [eos]

    def hidden_states(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any = None) -> Tensor:
        """Return the last hidden states, after the final norm. (B, N) -> (B, N, d)."""
        if mask.dim() == 4 and self.config._attn_implementation == "eager":
            mask = packing.additive(mask, self.model.dtype)
        decoder = self.model.get_decoder()
        output = decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states. (n, d) -> (n, V)."""
        return self.finished(self.head(hidden))

    @property
    def finishes_logits(self) -> bool:
        """Tell whether the model soft-caps (Gemma) or scales (Cohere, Granite) the logits of its head."""
        return any(getattr(self.config, key, None) is not None for key in ("final_logit_softcapping", *LOGIT_SCALES))

    def finished(self, logits: Tensor) -> Tensor:
        """Apply what the model does to the logits of its head."""
        for key, power in LOGIT_SCALES.items():
            if (scale := getattr(self.config, key, None)) is not None:
                logits = logits * scale**power
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def completion_states(self, prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor) -> Tensor:
        """Return the states that predict each completion token. (P, L), (P, G, T) -> (P, G, T, d)."""
        _, group, tokens = completion_ids.shape
        positions = torch.cat(
            [
                packing.prompt_positions(prompt_mask),
                packing.completion_positions(prompt_mask, group, 0, tokens - 1),
            ],
            dim=1,
        )
        mask = packing.attention_mask(prompt_mask, group, tokens - 1)
        hidden = self.hidden_states(packing.pack(prompt_ids, completion_ids), mask, positions)
        return packing.unpack(hidden, prompt_ids.shape[1], group)

    def logprobs(self, states: Tensor, completion_ids: Tensor, temperature: float) -> Tensor:
        """Return the log-probability of each completion token. (P, G, T, d), (P, G, T) -> (P, G, T)."""
        flat, targets = states.flatten(0, 2), completion_ids.flatten()
        if self.finishes_logits:
            logits = self.logits(flat).float() / temperature  # (P * G * T, V)
            return logits.log_softmax(-1).gather(-1, targets[:, None]).view_as(completion_ids)
        return token_logprobs(flat, self.head, targets, temperature).view_as(completion_ids)

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of prompts, padded on the left. n rows -> (n, L), (n, L)."""
        length = max(map(len, rows))
        ids = torch.tensor([[self.pad_id] * (length - len(row)) + list(row) for row in rows], device=self.device)
        mask = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows], device=self.device)
        return ids, mask

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Return the text of each row's masked tokens, without special tokens. (n, T) -> n texts."""
        rows = [row[keep].tolist() for row, keep in zip(ids.cpu(), mask.cpu(), strict=True)]
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts]


@contextmanager
def folded(updates: Iterable[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Add updates to weights within the block, in float32 and cast once; then put the old weights back, untouched."""
    originals: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, update in updates:
            originals.append((parameter, parameter.data))
            parameter.data = (parameter.data.float() + update.float()).to(parameter.dtype)
        yield
    finally:
        for parameter, data in reversed(originals):
            parameter.data = data


@torch.no_grad()
def check_head(model: LanguageModel) -> None:
    """Raise ModelError if the model does something to its logits that ``finished`` does not know."""
    ids = torch.arange(4, device=model.device)[None] + 1
    mask = torch.ones_like(ids)
    hidden = model.hidden_states(ids, mask, packing.prompt_positions(mask))
    own = model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    if not torch.allclose(model.logits(hidden).float(), own.float(), rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"{model.name}: the model changes its logits after the output layer in a way rsoup does not know.",
            "Use another base model.",
        )
