"""A cache of keys and values that does not move what it holds when it grows."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values (B, H, N, d) at the head of buffers for ``size`` tokens: a step writes its own tokens only."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if not self._buffers or end > self._buffers[0].shape[-2]:
            self._move(key_states, value_states, rows=len(key_states), size=max(end, self._size))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., begin:end, :] = new
        return self._show(end)

    def place(self, other: DynamicLayer, rows: Tensor, count: int, head: int, width: int) -> None:
        """Take over another layer as some of ``count`` rows: ``head`` tokens at the head, the rest up to ``width``."""
        assert other.keys is not None
        assert other.values is not None
        if not self._buffers:
            self.lazy_initialization(other.keys, other.values)
            self._move(other.keys, other.values, rows=count, size=max(width, self._size))
        begin = width - other.keys.shape[-2] + head
        for buffer, new in zip(self._buffers, (other.keys, other.values), strict=True):
            own = rows.to(buffer.device)
            buffer[own, :, :head] = new[..., :head, :]
            buffer[own, :, begin:width] = new[..., head:, :]
        self._show(width)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows only."""
        if self._buffers:
            self._buffers = [buffer[indices.to(buffer.device)] for buffer in self._buffers]
            self._show(self.get_seq_length())

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def _move(self, keys: Tensor, values: Tensor, *, rows: int, size: int) -> None:
        """Go on in larger buffers, which hold zeros where nothing is: what a mask hides may be anything but NaN."""
        held = self.get_seq_length()
        old, self._buffers = (
            self._buffers,
            [new.new_zeros(rows, new.shape[1], size, new.shape[3]) for new in (keys, values)],
        )
        for buffer, before in zip(self._buffers, old, strict=False):
            buffer[..., :held, :] = before[..., :held, :]


class RoomyCache(DynamicCache):
    """A cache of as many layers as the model asks for, each with room for ``size`` tokens."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer_class_to_replicate = partial(RoomyLayer, size)

    def place(self, other: DynamicCache, rows: Tensor, count: int, head: int, width: int) -> None:
        """Take over another cache as some of ``count`` rows, layer by layer (``RoomyLayer.place``)."""
        for index, layer in enumerate(other.layers):
            if index == len(self.layers):
                self.layers.append(self.layer_class_to_replicate())
            self.layers[index].place(layer, rows, count, head, width)
