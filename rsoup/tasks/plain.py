"""Values of data sets as JSON has them, so that they can be hashed, kept in Parquet and shown whatever they were."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

LONGEST_WHOLE = 18
"""Digits of a decimal number up to which it stays a whole number."""


KINDS: tuple[tuple[Any, Any], ...] = (
    (str, str),
    (Mapping, dict),
    (tuple, list),
    (list, list),
    ((set, frozenset), lambda values: sorted(values, key=str)),
    (timedelta, timedelta.total_seconds),
    ((datetime, date, time), lambda value: value.isoformat()),
)
"""Kinds of values and what makes plainer ones of them."""


def plain(value: Any) -> Any:
    """Return a value as JSON has it: texts, numbers, true, false, null, lists and mappings of these.

    Dates become ISO texts, durations seconds, bytes their text or base64, what is no number (NaN, infinity) null, and
    arrays lists; of anything else its type stays.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        return {key if type(key) is str and key.isascii() else _key(key): plain(own) for key, own in value.items()}
    if kind is list:
        return [plain(own) for own in value]
    return _special(value)


def _key(key: Any) -> str:
    return str(plain(str(key)))


def _special(value: Any) -> Any:
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    for kind, base in KINDS:
        if isinstance(value, kind):
            return plain(base(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decoded(bytes(value))
    if callable(getattr(value, "tolist", None)):  # of numpy and torch
        return plain(value.tolist())
    return _named(value)


def _number(value: int | float | Decimal) -> int | float | None:
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        whole = value.adjusted() < LONGEST_WHOLE and value == value.to_integral_value()
        value = int(value) if whole else float(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode()


def _named(value: Any) -> Any:
    """Return the text of an object, unless it holds its place in memory, which differs from run to run."""
    text = str(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else plain(text)


def is_empty(value: Any) -> bool:
    """Tell whether a value says nothing: null, a blank text, a list or a mapping of nothing."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def filled(value: Any) -> Any:
    """Return a plain value without the keys that hold null, as tables add them to make all rows alike."""
    if isinstance(value, Mapping):
        return {key: filled(own) for key, own in value.items() if own is not None}
    return [filled(own) for own in value] if isinstance(value, list) else value


def as_text(value: Any) -> str:
    """Return a plain value as a text: a text itself, anything else as JSON writes it, nothing as an empty one."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the columns of rows, None where a row has none of that name."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name) for row in rows) for name in names}


def one_type(values: Iterable[Any]) -> list[Any]:
    """Return plain values so that they have one type: as they are if they do, else as texts."""
    values = list(values)
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str} or kinds in ({bool}, {int}, {float}, {int, float}):
        small = all(abs(value) < 1 << 63 for value in values if isinstance(value, int))
        if small:
            return [float(value) if kinds == {int, float} and value is not None else value for value in values]
    return [None if value is None else as_text(value) for value in values]
