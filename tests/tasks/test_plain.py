"""Values of data sets become JSON once, whatever they were."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.tasks.plain import columns_of, one_type, plain


class Thing:
    """Something with the text that Python gives it."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1.5), 90.0),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x00", "/wA="),
        (Decimal("2"), 2),
        (Decimal("0.1"), 0.1),
        (Decimal("sNaN"), None),
        (Decimal("1E+999999"), None),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.str_("a"), "a"),
        ((1, {"a": {2}}), [1, {"a": [2]}]),
        ({1: "a"}, {"1": "a"}),
        ("half \ud83d", "half ?"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Thing(), "<Thing>"),
    ],
)
def test_a_value_is_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
NESTED = st.deferred(
    lambda: st.lists(VALUES, max_size=3) | st.dictionaries(st.text(st.characters()), VALUES, max_size=3)
)
VALUES = SCALARS | st.decimals() | st.dates() | NESTED


@settings(deadline=None, max_examples=30)
@given(st.lists(VALUES, min_size=1))
def test_whatever_comes_can_be_hashed_and_kept(values: list[Any]) -> None:
    """JSON without NaN, and Arrow with one type for a column: neither ever fails, and plain is plain already."""
    found = plain(values)
    assert plain(json.loads(json.dumps(found, allow_nan=False))) == found
    assert pa.array(one_type(found)).to_pylist() == one_type(found)


def test_rows_become_columns() -> None:
    assert columns_of([{"a": 1}, {"b": 2}]) == {"a": (1, None), "b": (None, 2)}
