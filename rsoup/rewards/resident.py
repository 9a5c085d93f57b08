"""A reward model in memory: batches whose padding changes no score, one pass for all rewards that share the model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from rsoup.errors import RewardError, first_line
from rsoup.rewards.heads import Outputs, describe_outputs
from rsoup.rewards.reading import Encoded

DEFAULT_MAX_TOKENS = 512
UNBOUNDED = 1_000_000
"""Numbers of tokens from which on a limit is none."""
SAME, NARROW_SAME = 1e-4, 5e-2
"""How far a padded row may be from the row alone, relative to the scores, in float32 and in narrower types."""

Inputs = tuple[tuple[int, ...], tuple[int, ...] | None]
Padding = Literal["right", "left", "none"]


class Resident:
    """A sequence classifier and its tokenizer, shared by the rewards that read it.

    Rows are padded on a side where padding changes nothing, which is tried out with the first rows; where there is
    none, a batch has rows of one length. Outputs of the last call are kept for the next reward.
    """

    def __init__(self, what: str, model: Any, tokenizer: Any) -> None:
        self.what, self.model, self.tokenizer = what, model, tokenizer
        self.config = model.config.get_text_config()
        self.labels = {int(index): str(label) for index, label in dict(model.config.id2label or {}).items()}
        self._most = _most_positions(model)
        self._usual = tokenizer.model_max_length
        self._accepts = _accepted(model)
        self._embeddings = _embeddings(what, model)
        declared = getattr(self.config, "pad_token_id", None)
        fits = declared is not None and 0 <= declared < self._embeddings.weight.shape[0]
        self._declared_pad: int | None = declared if fits else None
        self._padding: Padding | None = None
        self._described: Outputs | None = None
        self._last: dict[Inputs, np.ndarray] = {}

    def limit(self, asked: int | None) -> int:
        """Return how many tokens are read, or fewer if so ``asked``: more than the tokenizer says only then."""
        known = [self._most, asked or (self._usual if 0 < self._usual < UNBOUNDED else None)]
        return min((limit for limit in known if limit is not None), default=DEFAULT_MAX_TOKENS)

    @property
    def described(self) -> Outputs:
        """What the model returns; known after ``settle``."""
        assert self._described is not None
        return self._described

    def settle(self, rows: Sequence[Encoded]) -> None:
        """Find out with two rows what the model returns and how it may be padded; RewardError if it cannot be run."""
        if self._padding is not None:
            return
        with torch.no_grad():
            try:
                output = _mapping(self._forward(rows[:1], "none"))
                self._described = describe_outputs(output, 1, self.labels)
                each = [self._values([row], "none") for row in rows]
                if len({values.shape for values in each}) > 1:
                    raise ValueError(f"it returns {self._described.shape}, of a size that changes with the text")
                alone = np.concatenate(each)
            except RewardError:
                raise
            except Exception as problem:  # whatever code of a model raises
                raise RewardError(
                    f"{self.what} cannot be read as a classifier of texts: {first_line(problem)}.",
                    "Give a sequence classifier, and as template the text that it was trained on.",
                ) from problem
            self._padding = self._harmless_side(rows, alone)

    def _harmless_side(self, rows: Sequence[Encoded], alone: np.ndarray) -> Padding:
        """Return where padding changes the outputs least; ``none`` if it changes them by more than rounding does."""
        if len(rows[0].ids) == len(rows[1].ids):
            return "none"
        right, left = self._change(rows, "right", alone), self._change(rows, "left", alone)
        near = SAME if self.model.dtype == torch.float32 else NARROW_SAME
        side: Padding = "right" if right <= max(10 * left, near / 100) else "left"
        return side if (right if side == "right" else left) <= near else "none"

    def _change(self, rows: Sequence[Encoded], side: Padding, alone: np.ndarray) -> float:
        """Return by how much padding changes outputs, relative to their size."""
        try:
            padded = self._values(rows, side)
        except Exception:  # a model that cannot be padded on this side
            return float("inf")
        change = np.abs(padded - alone) / (1 + np.abs(alone).max())
        return float(change.max()) if np.isfinite(change).all() else float("inf")

    @torch.no_grad()
    def outputs(self, rows: Sequence[Encoded], batch_size: int) -> np.ndarray:
        """Return what the model makes of each row, float64 (n, columns of ``described``)."""
        assert self._padding is not None
        known = {row.inputs: self._last[row.inputs] for row in rows if row.inputs in self._last}
        missing = list({row.inputs: row for row in rows if row.inputs not in known}.values())
        for batch in self._batches(missing, batch_size):
            known |= {row.inputs: own for row, own in zip(batch, self._values(batch, self._padding), strict=True)}
        self._last = known
        return np.stack([known[row.inputs] for row in rows])

    def _batches(self, rows: Sequence[Encoded], size: int) -> Iterator[Sequence[Encoded]]:
        """Group rows of similar length that one pass may hold."""

        def group(row: Encoded) -> tuple[int, int]:
            return (self._ends(row), len(row.ids) if self._padding == "none" else 0)

        ordered = sorted(rows, key=lambda row: (group(row), len(row.ids)))
        start = 0
        for end in range(1, len(ordered) + 1):
            if end == len(ordered) or end - start == size or group(ordered[end]) != group(ordered[start]):
                yield ordered[start:end]
                start = end

    def _ends(self, row: Encoded) -> int:
        """Return the number of end tokens in a row: encoder-decoders read the last and want as many in each."""
        return row.ids.count(self.config.eos_token_id) if self.config.is_encoder_decoder else 0

    def _values(self, rows: Sequence[Encoded], side: Padding) -> np.ndarray:
        values: np.ndarray = self.described.values(_mapping(self._forward(rows, side))).double().numpy()
        return values

    def _forward(self, rows: Sequence[Encoded], side: Padding) -> Any:
        self._check(rows)
        longest = max(len(row.ids) for row in rows)

        def padded(row: Sequence[int], filler: int) -> list[int]:
            fill = [filler] * (longest - len(row))
            return [*fill, *row] if side == "left" else [*row, *fill]

        inputs = {
            "input_ids": [padded(row.ids, self._pad(rows)) for row in rows],
            "attention_mask": [padded([1] * len(row.ids), 0) for row in rows],
        }
        if all(row.segments is not None for row in rows) and getattr(self.config, "type_vocab_size", None) != 1:
            inputs["token_type_ids"] = [padded(row.segments or (), 0) for row in rows]
        device = self._embeddings.weight.device
        return self.model(
            **{key: torch.tensor(value, device=device) for key, value in inputs.items() if self._accepts(key)}
        )

    def _check(self, rows: Sequence[Encoded]) -> None:
        """Refuse rows that the model cannot read."""
        known = self._embeddings.weight.shape[0]
        most = max(max(row.ids) for row in rows)
        if most >= known:
            token = self.tokenizer.convert_ids_to_tokens(most)
            raise RewardError(
                f"{self.what}: its tokenizer makes the token {most} ({token}), and the model knows {known} tokens.",
                "Give the model the tokenizer that it was trained with.",
            )
        end = self.config.eos_token_id
        if self.config.is_encoder_decoder and end is not None and min(map(self._ends, rows)) == 0:
            token = self.tokenizer.convert_ids_to_tokens(end)
            raise RewardError(
                f"{self.what} reads its score at the token {token}, which the text lacks.", "End template with {eos}."
            )

    def _pad(self, rows: Sequence[Encoded]) -> int:
        """Return the token to pad with: the model's, else one that no row has.

        Decoders score the last token that is not the model's padding: a text that ends with it would lose its end.
        """
        if self._declared_pad is not None:
            return self._declared_pad
        used = {token for row in rows for token in row.ids}
        free = next((token for token in range(len(used) + 1) if token not in used), 0)
        self.config.pad_token_id = self.model.config.pad_token_id = free
        return free


def _embeddings(what: str, model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError as problem:
        raise RewardError(
            f"{what} is a {type(model).__name__}, which has no table of tokens.", "Give a model that reads tokens."
        ) from problem


def _mapping(output: Any) -> Mapping[str, Any]:
    if not isinstance(output, Mapping):
        raise ValueError(f"it returns a {type(output).__name__} without names")
    return output


def _accepted(model: Any) -> Any:
    """Return a function that tells whether a model's ``forward`` takes an argument."""
    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(own.forward).parameters
    any_name = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return lambda key: key in parameters or (any_name and key != "token_type_ids")


def _most_positions(model: Any) -> int | None:
    """Return the number of tokens a model can read, None if any: some tables of positions begin after the padding's."""
    tables = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    declared = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    known = [limit for limit in (declared, *tables) if limit is not None and 0 < limit < UNBOUNDED]
    return min(known, default=None)
