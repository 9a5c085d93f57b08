"""Rows of one batch that each mix the same experts by weights of their own, in the same matrix products.

With the experts' factors side by side, A_cat = [A_1; ...; A_N] and B_cat = [B_1, ..., B_N], a row x with the weights w
of N experts of scale s gets, beside W x,

    cat:      B_cat (w . (A_cat x)),              the exact sum of the updates w_j s_j B_j A_j x
    factors:  s B_cat [w_1 h; ...; w_N h]         with h = sum_j a_j A_j x, the product of the averaged factors,

where . scales each expert's part of the vector, and a = w unless the base takes part (``mixing.methods``). All rows
share both products, so that N experts cost what one adapter of their summed rank does.

Axes: R rows that have weights, N experts, K the sum of their ranks at a module, r the rank they share under factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rsoup.adapters import Layer
from rsoup.errors import AdapterError
from rsoup.mixing.methods import down_weights
from rsoup.models.language_model import LanguageModel

Method = Literal["factors", "cat"]


@dataclass(frozen=True)
class Mix:
    """What a row is made of: a weight for each expert, and one for the base."""

    weights: tuple[float, ...]
    base_weight: float = 0.0


@dataclass(frozen=True)
class RowWeights:
    """The weights of B (R, N), and those of A, which differ under factors where the base takes part."""

    ups: Tensor  # (R, N)
    downs: Tensor  # (R, N)

    @classmethod
    def of(cls, mixes: Sequence[Mix], device: torch.device) -> RowWeights:
        """Return the weights of rows, one mix each."""
        ups, downs = [mix.weights for mix in mixes], [_downs(mix) for mix in mixes]
        return cls(*(torch.tensor(rows, dtype=torch.float32, device=device) for rows in (ups, downs)))

    def at(self, rows: Tensor) -> RowWeights:
        """Return the weights of some rows."""
        return RowWeights(self.ups[rows], self.downs[rows])


def _downs(mix: Mix) -> list[float]:
    """Return the weights of the experts' A: an expert of weight 0 takes no part, as in ``mixing.mix``."""
    used = [weight for weight in mix.weights if weight]
    found = iter(down_weights(used, mix.base_weight)) if used else iter(())
    return [next(found) if weight else 0.0 for weight in mix.weights]


@dataclass(frozen=True)
class Stack:
    """Several experts' updates of one module: A_cat (K, in), B_cat (out, K) and the expert of each of the K (K,).

    Under cat, B_cat holds the scales; under factors ``scale`` is the one that all share. The tensors may be trained.
    """

    kind: Literal["linear", "embedding"]
    down: Tensor
    up: Tensor
    owners: Tensor
    scale: float = 1.0


def stack(layers: Mapping[int, Layer], method: Method, device: torch.device) -> Stack:
    """Put the updates of one module side by side, in float32; the keys are the experts' places among all N."""
    parts = list(layers.values())
    downs = [np.asarray(layer.down, dtype=np.float32) for layer in parts]
    scales = [layer.scale if method == "cat" else 1.0 for layer in parts]
    ups = [np.float32(scale) * np.asarray(layer.up, np.float32) for scale, layer in zip(scales, parts, strict=True)]
    return Stack(
        kind="embedding" if parts[0].kind == "embedding" else "linear",
        down=torch.from_numpy(np.concatenate(downs)).to(device),
        up=torch.from_numpy(np.concatenate(ups, axis=1)).to(device),
        owners=torch.tensor([place for place, layer in layers.items() for _ in range(layer.rank)], device=device),
        scale=1.0 if method == "cat" else parts[0].scale,
    )


class RowExperts:
    """Experts on a resident base. Within ``with experts:`` the base has its hooks, afterwards it is as it was.

        with experts:
            with experts.rows(weights_of_a_batch):
                model.hidden_states(ids, mask, positions)

    Every row of weights serves as many consecutive rows of a batch as it has to: a group of completions, or the tokens
    of a row where a module sees them one after the other. Without ``rows`` the model is the base.
    """

    def __init__(self, stacks: Mapping[str, tuple[nn.Module, Stack]], method: Method, count: int) -> None:
        self.stacks = {name: own for name, (_, own) in stacks.items()}
        self.count = count
        self._modules = {name: module for name, (module, _) in stacks.items()}
        self._weigh = _weigh_sums if method == "cat" else _weigh_factors
        self._rows: RowWeights | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> RowExperts:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name, self.stacks[name])))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    @contextmanager
    def rows(self, weights: RowWeights) -> Iterator[None]:
        """Give the rows of the batches in the block their weights. (R, N)."""
        if weights.ups.shape[-1] != self.count:
            raise ValueError(f"{weights.ups.shape[-1]} weights a row for {self.count} experts")
        before, self._rows = self._rows, weights
        try:
            yield
        finally:
            self._rows = before

    def _hook(self, name: str, own: Stack) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if self._rows is None:
                return None
            given = inputs[0]
            if own.kind == "embedding":
                low = nn.functional.embedding(given, own.down.T) * getattr(module, "embed_scale", 1.0)  # Gemma 3 scales
            else:
                low = given.to(own.down.dtype) @ own.down.T  # (B, ..., K)
            weights = self._rows.at(_served(name, len(self._rows.ups), len(given), own.owners.device))
            return output + (self._weigh(low, weights, own) @ own.up.T).to(output.dtype)

        return hook


class Alike:
    """Within the block the base is one mix of experts, whatever the batch; it can be entered any number of times."""

    def __init__(self, experts: RowExperts, mix: Mix, device: torch.device) -> None:
        self._experts, self._weights = experts, RowWeights.of([mix], device)
        self._entered = ExitStack()

    def __enter__(self) -> None:
        self._entered.enter_context(self._experts)
        self._entered.enter_context(self._experts.rows(self._weights))

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._entered.close()


@dataclass(frozen=True, kw_only=True)
class RowsModel(LanguageModel):
    """A base whose rows mix experts, a row of weights each; it computes only what is told which rows it is."""

    experts: RowExperts
    weights: RowWeights

    def at_rows(self, rows: Tensor) -> AbstractContextManager[None]:
        """Compute these rows of the whole batch within the block, each with its weights."""
        return self.experts.rows(self.weights.at(rows))


def with_rows(model: LanguageModel, experts: RowExperts, mixes: Sequence[Mix]) -> RowsModel:
    """Return a base with experts as a model of as many rows as there are mixes."""
    own = {field.name: getattr(model, field.name) for field in fields(LanguageModel)}
    return RowsModel(**own, experts=experts, weights=RowWeights.of(mixes, model.device))


def _served(name: str, rows: int, size: int, device: torch.device) -> Tensor:
    """Return which row of weights each of ``size`` rows of a batch has. (B,)."""
    if size % rows:
        raise AdapterError(
            f"{name}: is given {size} rows of a batch for {rows} rows of weights.",
            "Run the whole batch at once, every row with its own weights.",
        )
    return torch.arange(rows, device=device).repeat_interleave(size // rows)


def _weigh_sums(low: Tensor, weights: RowWeights, own: Stack) -> Tensor:
    """Return w . (A_cat x). (B, ..., K), (B, N) -> (B, ..., K)."""
    return low * _spread(weights.ups[:, own.owners], low)


def _weigh_factors(low: Tensor, weights: RowWeights, own: Stack) -> Tensor:
    """Return s [w_1 h; ...; w_N h] with h = sum_j a_j A_j x. (B, ..., N * r), (B, N) -> (B, ..., N * r)."""
    each = low.unflatten(-1, (weights.ups.shape[-1], -1))  # (B, ..., N, r)
    mixed = (each * _spread(weights.downs[..., None], each)).sum(-2, keepdim=True)
    return own.scale * (mixed * _spread(weights.ups[..., None], each)).flatten(-2)


def _spread(weights: Tensor, values: Tensor) -> Tensor:
    """Let the weights of rows (B, k...) meet values (B, ..., k...)."""
    middle = values.dim() - weights.dim()
    return weights.reshape(len(weights), *[1] * middle, *weights.shape[1:])
