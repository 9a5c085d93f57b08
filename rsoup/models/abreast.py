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
                given, output = given[order], output[order]
            counts = [share.rows * times for share in self._shares]
            parts = zip(given.split(counts), output.split(counts), self._shares, strict=True)
            updated = [_updated(layer, *part) for part in parts]
            found = updated[0] if len(updated) == 1 else torch.cat(updated)
            return found if order is None else found[order.argsort()]

        return hook


def _updated(layer: Any, rows: Tensor, output: Tensor, share: Share) -> Tensor:
    """Return what the base puts out for rows of an adapter, (n, ..., out), with what that adds; (n, ..., in)."""
    columns = share.columns if rows.dim() == 3 else None
    if columns is None or columns == slice(0, rows.shape[1]):
        return _added(layer, rows, output, share)
    inner = _added(layer, rows[:, columns], output[:, columns], share)
    return torch.cat([output[:, : columns.start], inner, output[:, columns.stop :]], dim=1)


def _added(layer: Any, rows: Tensor, output: Tensor, share: Share) -> Tensor:
    """Return output + s B (A rows), rounded as it is for an adapter alone (``adapted``)."""
    down, up = layer.lora_A[share.adapter].weight, layer.lora_B[share.adapter].weight
    dropout, scale = layer.lora_dropout[share.adapter], layer.scaling[share.adapter]
    if dropout.training and isinstance(dropout, nn.Dropout):
        with share.random():
            dropped = dropout(rows.to(down.dtype))
        return (output + dropped @ down.T @ up.T * scale).to(output.dtype)
    low = rows.flatten(0, -2) @ down.to(rows.dtype).T
    return torch.addmm(output.flatten(0, -2), low, (scale * up).to(rows.dtype).T).view_as(output)


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
