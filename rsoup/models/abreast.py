"""Adapters that are trained abreast: rows of one batch, each computed with the factors of one adapter.

Where ``rowwise`` mixes every expert into every row, here the rows of an adapter go through its own two products alone,
beside the base's product of all rows. So N adapters cost no more arithmetic than one, gradients reach a row's own
factors only, and dropout can draw for each adapter what it would draw for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn

from rsoup.errors import ModelError
from rsoup.models.language_model import LanguageModel


@dataclass(frozen=True)
class Share:
    """Consecutive rows of a batch that are an adapter's, and the columns in which they hold anything (none: all)."""

    adapter: str
    rows: int
    columns: slice | None = None
    random: Callable[[], AbstractContextManager[None]] = nullcontext
    """Within it dropout draws what is the adapter's to draw."""


class Abreast:
    """The layers of a model that PEFT has given several adapters; rows have none but those in ``shared``."""

    def __init__(self, model: LanguageModel, peft: Any, adapters: Sequence[str]) -> None:
        self._shares: tuple[Share, ...] = ()
        self._order: Tensor | None = None
        for name, layer in peft.named_modules():
            if isinstance(layer, LoraLayer):
                _check(model, name, layer, adapters)
                layer.set_adapter([])
                layer.set_requires_grad(adapters)
                layer.register_forward_hook(self._hook(name))

    @contextmanager
    def shared(self, shares: Sequence[Share], order: Tensor | None = None) -> Iterator[None]:
        """Give the rows of batches within the block their adapters; ``order`` puts rows as the shares have them."""
        before, self._shares, self._order = (self._shares, self._order), tuple(shares), order
        try:
            yield
        finally:
            self._shares, self._order = before

    def _hook(self, name: str) -> Any:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self._shares:
                return None
            given, order = inputs[0], self._order
            rows = sum(share.rows for share in self._shares)
            times, rest = divmod(len(given), rows)
            if rest:
                raise ModelError(
                    f"{name}: is given {len(given)} rows of a batch for {rows} rows of adapters.",
                    "Leave training.together out: this model takes the rows of a batch apart.",
                )
            if order is not None:
                order = (order[:, None] * times + torch.arange(times, device=order.device)).flatten()
                given = given[order]
            parts = given.split([share.rows * times for share in self._shares])
            updates = [_update(layer, part, share) for part, share in zip(parts, self._shares, strict=True)]
            update = updates[0] if len(updates) == 1 else torch.cat(updates)
            if order is not None:
                update = update[order.argsort()]
            return (output + update).to(output.dtype)

        return hook


def _update(layer: Any, rows: Tensor, share: Share) -> Tensor:
    """Return what an adapter adds to its rows. (n, ..., in) -> (n, ..., out)."""
    down, up = layer.lora_A[share.adapter], layer.lora_B[share.adapter]
    dropout, scale = layer.lora_dropout[share.adapter], layer.scaling[share.adapter]
    columns = share.columns if rows.dim() == 3 else None
    held = rows if columns is None else rows[:, columns]
    held = held.to(down.weight.dtype)
    if dropout.training and isinstance(dropout, nn.Dropout):
        with share.random():
            held = dropout(held)
    update: Tensor = up(down(held)) * scale
    if columns is None or update.shape[1] == rows.shape[1]:
        return update
    return nn.functional.pad(update, (0, 0, columns.start, rows.shape[1] - columns.stop))


@dataclass(frozen=True, kw_only=True)
class AbreastModel(LanguageModel):
    """A base whose rows are each of one adapter; it computes only what is told which rows it is."""

    layers: Abreast
    adapters: tuple[str, ...]
    owners: Tensor  # (R,), the place of each row's adapter among all

    def at_rows(self, rows: Tensor) -> AbstractContextManager[None]:
        """Compute these rows of the whole batch within the block, each with its adapter."""
        owners = self.owners[rows]
        order = owners.argsort(stable=True)
        counts = owners.bincount(minlength=len(self.adapters)).tolist()
        shares = [Share(name, count) for name, count in zip(self.adapters, counts, strict=True) if count]
        return self.layers.shared(shares, None if bool((owners.diff() >= 0).all()) else order)


def with_adapters(model: LanguageModel, layers: Abreast, rows: Mapping[str, int]) -> AbreastModel:
    """Return a base as a model of so many rows of each adapter, one adapter after the other."""
    own = {field.name: getattr(model, field.name) for field in fields(LanguageModel)}
    owners = torch.arange(len(rows)).repeat_interleave(torch.tensor(list(rows.values()))).to(model.device)
    return AbreastModel(**own, layers=layers, adapters=tuple(rows), owners=owners)


def _check(model: LanguageModel, name: str, layer: Any, adapters: Sequence[str]) -> None:
    """Raise ModelError unless rows can each have their own adapter at a layer."""
    if isinstance(layer, ParamWrapper) or "experts" in name.split("."):
        raise ModelError(
            f"{model.name}: {name} holds experts of a mixture, which see tokens of several rows at once: trainings "
            "cannot share passes there.",
            "Leave training.together out, or train the attention alone (model.lora.target_modules).",
        )
    if not all(isinstance(layer.lora_A[adapter], nn.Linear) for adapter in adapters if adapter in layer.lora_A):
        raise ModelError(
            f"{model.name}: {name} is no linear layer: trainings cannot share passes there.",
            "Leave training.together out, or set model.lora.target_modules to linear layers.",
        )
