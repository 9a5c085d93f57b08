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


def plain(value: Any) -> Any:
    """Return a value as JSON has it: texts, numbers, true, false, null, lists and mappings of these.

    Dates become ISO texts, durations seconds, bytes their text or base64, what is no number (NaN, infinity) null, and
    arrays lists; of anything else its type stays.
    """
    if value is None or isinstance(value, (bool, int)):
        return value if value is None or type(value) in (bool, int) else int(value)
    if isinstance(value, str):
        return str(value) if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(own) for own in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    return _special(value)


def _special(value: Any) -> Any:
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decoded(bytes(value))
    if callable(getattr(value, "tolist", None)):  # of numpy and torch
        return plain(value.tolist())
    return _named(value)


def _number(value: Decimal) -> int | float | None:
    if not value.is_finite():
        return None
    whole = value.adjusted() < LONGEST_WHOLE and value == value.to_integral_value()
    number: int | float | None = plain(int(value) if whole else float(value))
    return number


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode()


def _named(value: Any) -> Any:
    """Return the text of an object, unless it holds its place in memory, which differs from run to run."""
    text = str(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else plain(text)


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
