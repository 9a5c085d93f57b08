"""Between float32 and the narrower types: exact, and fast also where the compiler of ml_dtypes knew no vectors."""

from __future__ import annotations

import math

import numpy as np

from rsoup.adapters.tensorfile import DTYPES, Array

BLOCK = 1 << 19
"""Elements rounded at a time. Smaller blocks fit a core's own cache, but threads then wait for each other more."""
_BRAIN = DTYPES["BF16"]
_ABOVE_HALF, _LAST = np.uint32(0x7FFF), np.uint32(1)
_KEPT, _SIGN, _NAN = np.uint32(0xFFFF0000), np.uint32(0x80000000), np.uint32(0x7FC00000)
_SHIFT = np.uint32(16)


def widen(array: Array, out: Array) -> Array:
    """Copy an array into float32 memory of its size."""
    np.copyto(out, array)
    return out


def narrow(array: Array, out: Array, *, rounded: Array) -> Array:
    """Round float32 to ``out``, to nearest, ties to even, and return the same values as float32 in ``rounded``.

    Flat arrays of one length, none of which share memory. NaN becomes a quiet NaN of its sign, as in ml_dtypes; what is
    too large, infinity.
    """
    if out.dtype != _BRAIN:
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, array, casting="same_kind")
        np.copyto(rounded, out)
        return rounded
    for start in range(0, array.size, BLOCK):
        piece = slice(start, start + BLOCK)
        work = rounded[piece].view(np.uint32)
        _round(array[piece], work)
        np.right_shift(work, _SHIFT, out=out[piece].view(np.uint16), casting="unsafe")
        np.bitwise_and(work, _KEPT, out=work)
    return rounded


def _round(values: Array, work: Array) -> None:
    """Round float32 at the end of what bfloat16 keeps: add just under half of its last place, and that place's parity.

    The lower half of ``work`` is left with what is to be cut off.
    """
    bits = values.view(np.uint32)
    np.right_shift(bits, _SHIFT, out=work)
    np.bitwise_and(work, _LAST, out=work)
    np.add(work, _ABOVE_HALF, out=work)
    np.add(work, bits, out=work)
    if values.size and math.isnan(float(values.max())):
        nan = np.isnan(values)
        work[nan] = (bits[nan] & _SIGN) | _NAN
