"""Read what a reward returns: numbers in any clothes, and None where it does not apply."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Coroutine, Iterable, Mapping, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from rsoup.errors import RewardError

NOT_NUMBERS = "Return a list of floats, with None where the reward does not apply."


def read_scores(name: str, values: Any, count: int) -> list[float | None]:
    """Return the numbers a reward gave for ``count`` completions; None is kept, infinities and NaN too.

    Tensors of any device and dtype, arrays, generators and lists of single values are read.
    """
    values = _as_array(values)
    shape = values.shape if isinstance(values, np.ndarray) else None
    if shape is None and isinstance(values, (Real, Decimal)):
        shape = ()
    if shape is None:
        if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping, Set)):
            what = "None in the place of a list" if values is None else f"a {type(values).__name__}"
            what = "an async generator" if isinstance(values, AsyncIterable) else what
            raise RewardError(f"The reward {name} returned something that is not numbers: {what}.", NOT_NUMBERS)
        values = [_as_array(value) for value in values]
        _check_awaited(name, values)
        inner = next((value.shape for value in values if isinstance(value, np.ndarray) and value.size != 1), None)
        inner = inner or next(((len(value),) for value in values if isinstance(value, (list, tuple))), ())
        shape = (len(values), *inner)
    if shape != (count,):
        how = ": squeeze(-1) takes the last axis away" if shape == (count, 1) else ""
        raise RewardError(
            f"The reward {name} returned an array of shape {shape} for {count} completions.",
            f"Return one number per completion{how}.",
        )
    return [_number(name, value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]


def _check_awaited(name: str, values: Iterable[Any]) -> None:
    """Refuse what an async function made and did not wait for."""
    unawaited = [value for value in values if isinstance(value, Awaitable)]
    for value in unawaited:
        if isinstance(value, Coroutine):
            value.close()  # it would warn that it was never awaited
    if unawaited:
        raise RewardError(
            f"The reward {name} returned something that is not numbers: a {type(unawaited[0]).__name__}, which nobody "
            "waits for.",
            "Return await asyncio.gather(*values) from an async function.",
        )


def _as_array(value: Any) -> Any:
    """Return a tensor as an array that numpy can hold; anything else as it is."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        return (value if value.dtype.is_complex else value.double()).numpy()
    if not isinstance(value, np.ndarray) and hasattr(value, "__array__") and not isinstance(value, np.generic):
        return np.asarray(value)
    return value


def _number(name: str, value: Any) -> float | None:
    """Return a single value as a float."""
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        value = value.item()
    if value is None:
        return None
    if not isinstance(value, (Real, Decimal)):
        raise RewardError(
            f"The reward {name} returned something that is not numbers: {_shown(value)} is a {type(value).__name__}.",
            NOT_NUMBERS,
        )
    return float(value)


def _shown(value: Any, limit: int = 60) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
