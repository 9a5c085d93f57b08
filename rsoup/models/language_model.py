"""A causal language model as rsoup uses it: hidden states, logits, and weights that can be folded and restored."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from rsoup.models import attention, packing
from rsoup.models.logprobs import token_logprobs, token_logprobs_and_entropies

if TYPE_CHECKING:
    from rsoup.models.sharding import Shards

LOGIT_SCALES = {"logit_scale": 1, "logits_scaling": -1}
"""Configuration keys of factors on the logits, and whether they multiply (1) or divide (-1)."""


@dataclass(frozen=True)
class LanguageModel:
    """A transformers causal model, its tokenizer, and where it came from.

    ``name`` is what the user calls the model, ``path`` what transformers loads, ``sha256`` identifies its weights.
    ``shares_prefix`` tells whether packed rows (``rsoup.models.packing``) give what separate rows give. ``shards`` is
    there if its layers are split over processes, whose passes through the model then have to be as many.
    """

    model: Any
    tokenizer: Any
    name: str
    path: str
    sha256: str
    shares_prefix: bool = True
    shards: Shards | None = None

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
    def decoder(self) -> Any:
        """The part of the model from token ids to hidden states; some models call themselves their decoder."""
        return decoder_of(self.model)

    @property
    def folds(self) -> bool:
        """Tell whether updates may be folded into its weights: narrow ones would round them away, parts have none."""
        whole = self.shards is None and not getattr(self.model, "is_quantized", False)
        return whole and self.model.dtype == torch.float32

    def anyone(self, *, goes_on: bool) -> bool:
        """Tell whether any process that the model is split over goes on with more passes."""
        return goes_on if self.shards is None else self.shards.anyone(goes_on=goes_on)

    def idle(self) -> None:
        """Take part in a pass of the others."""
        assert self.shards is not None
        self.shards.idle()

    @property
    def pad_id(self) -> int:
        """The token that fills rows; it is always masked."""
        pad: int | None = self.tokenizer.pad_token_id
        return pad if pad is not None else self.stop_ids[0]

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a completion: those of the generation settings and that of the tokenizer."""
        settings = self.model.generation_config.eos_token_id
        stops = [*(settings if isinstance(settings, list) else [settings]), self.tokenizer.eos_token_id]
        return [stop for stop in dict.fromkeys(stops) if stop is not None]

    def packs(self, length: int) -> bool:
        """Tell whether completions may share a row: the model can, and its attention reaches back ``length`` tokens."""
        windows = [getattr(self.config, key, None) for key in ("sliding_window", "window_size", "attention_chunk_size")]
        return self.shares_prefix and all(window is None or length <= window for window in windows)

    def cache_rows(self, rows: Tensor, _count: int) -> Tensor:
        """Return the rows of a cache of ``_count`` prompts that belong to some of them."""
        return rows

    def at_rows(self, _rows: Tensor) -> AbstractContextManager[None]:
        """Compute these rows of the whole batch within the block; here all rows are alike."""
        return nullcontext()

    def row_mask(self, prompt_mask: Tensor, group: int, tokens: int, *, queries: int | None = None) -> Tensor:
        """Return what tells ``hidden_states`` who sees whom in packed rows, as ``packing.attention_mask`` has it."""
        if group > 1 and self.config._attn_implementation == attention.NAME:
            return attention.mask_of(attention.Layout(prompt_mask, group, tokens, queries))
        return packing.attention_mask(prompt_mask, group, tokens, queries=queries)

    def hidden_states(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Return the last hidden states, after the final norm. (B, N) -> (B, N, d)."""
        if mask.dim() == 4 and self.config._attn_implementation == "eager":
            mask = packing.additive(mask, self.model.dtype)
        decoder = self.decoder
        options = {"position_ids": positions} if _takes_positions(type(decoder)) else {}
        output = decoder(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None, **options
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
        prompts, group, tokens = completion_ids.shape
        if group > 1 and not self.packs(prompt_ids.shape[1] + tokens):
            rows = packing.separate(prompt_ids, group), packing.separate(prompt_mask, group)
            return self.completion_states(*rows, completion_ids.flatten(0, 1)[:, None]).view(prompts, group, tokens, -1)
        positions = torch.cat(
            [
                packing.prompt_positions(prompt_mask),
                packing.completion_positions(prompt_mask, group, 0, tokens - 1),
            ],
            dim=1,
        )
        mask = self.row_mask(prompt_mask, group, tokens - 1)
        hidden = self.hidden_states(packing.pack(prompt_ids, completion_ids), mask, positions)
        return packing.unpack(hidden, prompt_ids.shape[1], group)

    def logprobs(self, states: Tensor, completion_ids: Tensor, temperature: float) -> Tensor:
        """Return the log-probability of each completion token. (P, G, T, d), (P, G, T) -> (P, G, T)."""
        flat, targets = states.flatten(0, 2), completion_ids.flatten()
        if self.finishes_logits:
            return self._plain_logprobs(flat, targets, temperature)[0].view_as(completion_ids)
        return token_logprobs(flat, self.head, targets, temperature).view_as(completion_ids)

    def logprobs_and_entropies(
        self, states: Tensor, completion_ids: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and the entropy (nats) of the distribution each token was drawn from."""
        flat, targets = states.flatten(0, 2), completion_ids.flatten()
        if self.finishes_logits:
            logprobs, logs = self._plain_logprobs(flat, targets, temperature)
            entropies = -(logs.exp() * logs).sum(-1)
        else:
            logprobs, entropies = token_logprobs_and_entropies(flat, self.head, targets, temperature)
        return logprobs.view_as(completion_ids), entropies.view_as(completion_ids)

    def _plain_logprobs(self, flat: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the targets' log-probabilities (n,) and those of all tokens (n, V)."""
        logs = (self.logits(flat).float() / temperature).log_softmax(-1)
        return logs.gather(-1, targets[:, None]).squeeze(-1), logs

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of prompts, padded on the left. n rows -> (n, L), (n, L)."""
        length = max(map(len, rows))
        ids = torch.tensor([[self.pad_id] * (length - len(row)) + list(row) for row in rows], device=self.device)
        mask = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows], device=self.device)
        return ids, mask

    def ends(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Tell which completions end by themselves, with a stop token. (..., T), (..., T) -> (...)."""
        last = ids.gather(-1, mask.sum(-1, keepdim=True) - 1).squeeze(-1)
        return torch.isin(last, torch.tensor(self.stop_ids, dtype=torch.long, device=ids.device))


def decoder_of(model: Any) -> Any:
    """Return the part of a model from token ids to hidden states."""
    decoder = model.get_decoder()
    inner = (child for child in model.children() if isinstance(child, PreTrainedModel))
    return next(inner, decoder) if decoder is model else decoder


def masked_tokens(ids: Tensor, mask: Tensor) -> list[list[int]]:
    """Return the masked tokens of each row. (n, T) -> n lists."""
    return [row[keep].tolist() for row, keep in zip(ids.cpu(), mask.cpu(), strict=True)]


def _takes_positions(decoder: Any) -> bool:
    """Tell whether a decoder is told positions; one with ALiBi finds them in the mask."""
    return "position_ids" in inspect.signature(decoder.forward).parameters


@contextmanager
def folded(updates: Iterable[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Add updates to float32 weights within the block; then put the old weights back, untouched.

    In a narrower type most entries of a small update would be rounded away.
    """
    originals: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter, update in updates:
            assert parameter.dtype == torch.float32
            originals.append((parameter, parameter.data))
            parameter.data = parameter.data + update
        yield
    finally:
        for parameter, data in reversed(originals):
            parameter.data = data
