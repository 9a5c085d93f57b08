"""The keys and values of a batch that rows join and leave at any token.

All rows end at one column, so that a step writes one column and a model sees a batch padded on the left, whatever its
kind of attention. What a row has lies before that column; a mask hides the rest.

              begin          end
    row 0  ....|--xxxxxxxxxxxx|......   x keys of the row, - hidden, . room
    row 1  ....|xxxxxxxxxxxxxx|......
    row 2  ....|---------xxxxx|......
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

STEP = 64
"""Columns are made in multiples of this."""


def capacity(rows: int, columns: int, limit: int) -> tuple[int, int]:
    """Return how many rows and columns to make for at least so many: some to spare, at most ``limit`` cells."""
    more_rows, more_columns = 1 << (rows - 1).bit_length(), -(-columns // STEP) * STEP
    if more_rows * more_columns <= limit:
        return more_rows, more_columns
    return min(more_rows, limit // columns), columns


class RowsLayer(DynamicLayer):
    """Keys and values (rows, H, columns, d) of one layer; a model sees those between ``begin`` and ``end``."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []
        self._rows = self._begin = self._end = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append keys and values to every row, and return all."""
        if self._end + key_states.shape[-2] > self._buffers[0].shape[-2]:
            self._rewind()
        first, self._end = self._end, self._end + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._rows, :, first : self._end] = new
        return self._show()

    def join(self, other: DynamicLayer, sources: Tensor, length: int, size: tuple[int, int]) -> None:
        """Add rows: those of another layer, its last ``length`` columns. ``size`` is the capacity to have."""
        assert other.keys is not None
        assert other.values is not None
        self._make_room(other, size, max(length, self._end - self._begin))
        rows, begin = slice(self._rows, self._rows + len(sources)), min(self._begin, self._end - length)
        for buffer, new in zip(self._buffers, (other.keys, other.values), strict=True):
            buffer[: self._rows, :, begin : self._begin] = 0  # what is hidden must not be NaN, as a row's that failed
            buffer[rows, :, begin : self._end - length] = 0
            buffer[rows, :, self._end - length : self._end] = new[sources, :, new.shape[-2] - length :]
        self._rows, self._begin = rows.stop, begin
        self._show()

    def leave(self, moves: Sequence[tuple[int, int]], rows: int, width: int) -> None:
        """Keep the first ``rows`` rows after moving some (from, to), and show their last ``width`` columns."""
        for buffer in self._buffers:
            for source, target in moves:
                buffer[target, :, self._begin : self._end] = buffer[source, :, self._begin : self._end]
        self._rows, self._begin = rows, self._end - width
        self._show()

    def _rewind(self) -> None:
        """Move everything to the first columns."""
        width = self._end - self._begin
        for buffer in self._buffers:
            buffer[: self._rows, :, :width] = buffer[: self._rows, :, self._begin : self._end].clone()
        self._begin, self._end = 0, width

    def _make_room(self, like: DynamicLayer, size: tuple[int, int], width: int) -> None:
        """Have buffers of a size, with the rows that are there ending at column ``width`` or later."""
        assert like.keys is not None
        assert like.values is not None
        if not self._buffers:
            self.lazy_initialization(like.keys, like.values)
        elif self._buffers[0].shape[0] == size[0] and self._buffers[0].shape[2] == size[1] and self._end >= width:
            return
        held = self._end - self._begin
        old, self._buffers = self._buffers, []
        for place, new in enumerate((like.keys, like.values)):
            buffer = new.new_zeros(size[0], new.shape[1], size[1], new.shape[3])
            if held:
                buffer[: self._rows, :, width - held : width] = old[place][: self._rows, :, self._begin : self._end]
            self._buffers.append(buffer)
        self._begin, self._end = width - held, width

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[: self._rows, :, self._begin : self._end] for buffer in self._buffers)
        return self.keys, self.values


class RowsCache(DynamicCache):
    """The layers of a batch whose rows come and go, of at most ``limit`` rows times columns.

    Use it for one batch from the first row to the last, and a new one for the next.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.layer_class_to_replicate = RowsLayer
        self.limit = limit
        self.rows = 0
        self.size = (0, 0)

    @property
    def cells(self) -> int:
        """The rows times columns that memory is held for."""
        return self.size[0] * self.size[1]

    def fits(self, rows: int, columns: int) -> bool:
        """Tell whether the limit has room for so many rows that may get so many columns."""
        return rows * columns <= self.limit

    def join(self, other: DynamicCache, sources: Tensor, length: int, columns: int) -> None:
        """Add rows of another cache, by their numbers there, the longest of ``length`` columns.

        All rows may get ``columns`` columns in the end.
        """
        rows = self.rows + len(sources)
        assert self.fits(rows, columns)
        if rows > self.size[0] or columns > self.size[1]:
            self.size = capacity(rows, columns, self.limit)
        for index, layer in enumerate(other.layers):
            if index == len(self.layers):
                self.layers.append(self.layer_class_to_replicate())
            self.layers[index].join(layer, sources, length, self.size)
        self.rows = rows

    def leave(self, gone: Sequence[int], width: int) -> list[int]:
        """Let rows go; the longest that stays has ``width`` columns. Return the old numbers in their new order."""
        left = set(gone)
        kept = self.rows - len(left)
        holes = [row for row in range(kept) if row in left]
        last = [row for row in range(kept, self.rows) if row not in left]
        order = list(range(kept))
        for source, target in zip(last, holes, strict=True):
            order[target] = source
        for layer in self.layers:
            layer.leave(list(zip(last, holes, strict=True)), kept, width)
        self.rows = kept
        return order
