"""Rows of a cache come and go; what a row holds is what it was given, at the end of its columns."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from rsoup.serving.cache import RowsCache, capacity

HEADS, SIZES = 2, (3, 5)  # keys and values may differ in size, as with latent attention


def numbers(first: int, rows: int, columns: int, size: int) -> Tensor:
    """Return (rows, H, columns, d) whose entries say which token they belong to."""
    tokens = torch.arange(first, first + rows * columns, dtype=torch.float32).view(rows, 1, columns, 1)
    return tokens.expand(-1, HEADS, -1, size).clone()


@dataclass
class Rows:
    """A cache of two layers beside plain lists of the tokens that each row should hold."""

    cache: RowsCache
    tokens: list[list[int]]
    next: int = 1

    def join(self, lengths: list[int], columns: int) -> None:
        width = max(lengths) + 2  # encoded beside a longer prompt
        other = DynamicCache()
        for layer in range(2):
            other.update(*(numbers(self.next, len(lengths), width, size) for size in SIZES), layer)
        self.cache.join(other, torch.arange(len(lengths)), max(lengths), columns)
        for row, length in enumerate(lengths):
            end = self.next + (row + 1) * width
            self.tokens.append(list(range(end - length, end)))
        self.next += len(lengths) * width

    def step(self) -> None:
        count = len(self.tokens)
        for layer in range(2):
            shown = self.cache.update(*(numbers(self.next, count, 1, size) for size in SIZES), layer)
            assert shown[0].shape == (count, HEADS, self.cache.get_seq_length(), SIZES[0])
        for row in self.tokens:
            row.append(self.next)
            self.next += 1

    def leave(self, gone: list[int]) -> None:
        width = max(len(row) for place, row in enumerate(self.tokens) if place not in gone)
        self.tokens = [self.tokens[place] for place in self.cache.leave(gone, width)]

    def check(self) -> None:
        assert self.cache.get_seq_length() == max(map(len, self.tokens))
        for layer in self.cache.layers:
            for held, size in zip((layer.keys, layer.values), SIZES, strict=True):
                assert held is not None
                for row, own in enumerate(self.tokens):
                    expected = torch.tensor(own, dtype=torch.float32)[:, None].expand(-1, size)
                    assert torch.equal(held[row, 0, held.shape[2] - len(own) :], expected)
                assert not held.isnan().any()


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_come_and_go_hold_what_they_were_given(seed: int) -> None:
    """A few hundred random joins, steps and departures against plain lists."""
    chance = random.Random(seed)
    rows = Rows(RowsCache(limit=400), [])
    ends: list[int] = []
    for _ in range(120):
        longest = 40
        if not rows.tokens or (chance.random() < 0.3 and rows.cache.fits(len(rows.tokens) + 2, longest)):
            lengths = [chance.randint(1, 12) for _ in range(chance.randint(1, 2))]
            rows.join(lengths, longest)
            rows.leave([])
            ends += [chance.randint(length, longest) for length in lengths]
        rows.check()
        gone = [place for place, end in enumerate(ends) if len(rows.tokens[place]) >= end]
        if len(gone) == len(ends):
            rows, ends = Rows(RowsCache(limit=400), []), []
            continue
        if gone:
            for layer in rows.cache.layers:  # a row may have failed
                assert layer.keys is not None
                layer.keys[gone] = torch.nan
            order = rows.cache.leave(gone, max(len(r) for p, r in enumerate(rows.tokens) if p not in gone))
            rows.tokens, ends = [rows.tokens[place] for place in order], [ends[place] for place in order]
            rows.check()
        rows.step()
        assert rows.cache.cells <= 400


@pytest.mark.parametrize(("rows", "columns", "limit"), [(1, 1, 64), (5, 70, 10_000), (5, 70, 400), (3, 100, 300)])
def test_room_is_made_within_the_limit(rows: int, columns: int, limit: int) -> None:
    more_rows, more_columns = capacity(rows, columns, limit)
    assert more_rows >= rows
    assert more_columns >= columns
    assert more_rows * more_columns <= limit


def test_there_is_room_to_spare_where_the_limit_allows() -> None:
    assert capacity(5, 70, 10_000) == (8, 128)
    assert capacity(5, 70, 400) == (5, 70)
