"""Rounding to the narrower types is that of ml_dtypes and numpy, bit for bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rsoup.mixing.casting import BLOCK, narrow, widen

from .making import DTYPES


def narrowed(values: Any, dtype: Any) -> tuple[Any, Any]:
    out, rounded = np.empty(len(values), dtype), np.empty(len(values), np.float32)
    assert narrow(values, out, rounded=rounded) is rounded
    return out, rounded


def assert_same(values: Any, dtype: Any) -> None:
    out, rounded = narrowed(values, dtype)
    with np.errstate(all="ignore"):
        expected = values.astype(dtype)
    assert out.tobytes() == expected.tobytes()
    assert rounded.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("dtype", DTYPES.values())
@given(bits=arrays.arrays(np.uint32, st.integers(0, 40), elements=st.integers(0, 2**32 - 1)))
@settings(max_examples=60, deadline=None)
def test_any_bits_are_rounded_as_the_library_rounds_them(dtype: Any, bits: Any) -> None:
    assert_same(bits.view(np.float32), dtype)


def test_every_bfloat16_and_what_lies_around_it_is_rounded_right() -> None:
    """All 65,536 values, the halves between them, and their neighbours: ties go to even, NaN stays NaN."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        assert_same((upper | lower).view(np.float32), ml_dtypes.bfloat16)


def test_blocks_join_without_a_seam() -> None:
    values = np.random.default_rng(0).standard_normal(2 * BLOCK + 3, dtype=np.float32)
    values[[0, BLOCK - 1, BLOCK, -1]] = [np.nan, np.inf, -np.nan, -np.inf]
    assert_same(values, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_widening_is_exact(dtype: Any) -> None:
    values = np.arange(-8, 8, 0.25).astype(dtype)
    out = widen(values, np.empty(len(values), np.float32))
    assert out.tobytes() == values.astype(np.float32).tobytes()
