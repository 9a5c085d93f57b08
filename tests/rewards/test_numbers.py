"""What rewards return is read in whatever clothes numbers come, and nothing else is taken for a number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from rsoup.errors import RewardError
from rsoup.rewards.numbers import read_scores


@pytest.mark.parametrize(
    "values",
    [
        [1, 0.5],
        (1.0, 0.5),
        np.array([1.0, 0.5], dtype=np.float16),
        torch.tensor([1.0, 0.5], requires_grad=True),
        torch.tensor([1.0, 0.5], dtype=torch.bfloat16),
        [torch.tensor(1.0, requires_grad=True), torch.tensor([0.5])],
        [np.float32(1), np.array(0.5)],
        [Decimal(1), Fraction(1, 2)],
        (value for value in (True, 0.5)),
        np.array([1, 0.5], dtype=object),
    ],
    ids=lambda values: type(values).__name__,
)
def test_numbers_are_numbers_in_any_clothes(values: Any) -> None:
    assert read_scores("own", values, 2) == [1.0, 0.5]


def test_whole_numbers_and_truths_are_read() -> None:
    assert read_scores("own", torch.tensor([True, False]), 2) == [1.0, 0.0]
    assert read_scores("own", np.array([3, 4]), 2) == [3.0, 4.0]
    assert read_scores("own", [None, np.bool_(True)], 2) == [None, 1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["0.5", 1.0], "'0.5' is a str"),
        ([1j, 1.0], "1j is a complex"),
        (torch.tensor([1j, 2j]), "is a complex"),
        ("ab", "not numbers: a str"),
        ({1.0, 2.0}, "not numbers: a set"),
        ({"a": 1.0, "b": 2.0}, "not numbers: a dict"),
        ([object(), 1.0], "is a object"),
        (torch.tensor([[1.0], [2.0]]), r"an array of shape \(2, 1\) for 2"),
        ([torch.tensor([1.0, 2.0])] * 2, r"an array of shape \(2, 2\) for 2"),
        ([1.0, 2.0, 3.0], r"an array of shape \(3,\) for 2"),
        (torch.tensor(1.0), r"an array of shape \(\) for 2"),
    ],
)
def test_anything_else_is_refused(values: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        read_scores("own", values, 2)


def test_what_was_not_awaited_is_refused_and_does_not_warn() -> None:
    async def one() -> float:
        return 1.0

    async def several() -> AsyncIterator[float]:
        yield 1.0

    with pytest.raises(RewardError, match="not numbers: a coroutine, which nobody waits for") as caught:
        read_scores("own", [one(), one()], 2)
    assert caught.value.hint == "Return await asyncio.gather(*values) from an async function."
    with pytest.raises(RewardError, match="not numbers: an async generator"):
        read_scores("own", several(), 2)


def test_a_last_axis_of_one_number_is_named() -> None:
    with pytest.raises(RewardError) as caught:
        read_scores("own", torch.ones(2, 1), 2)
    assert caught.value.hint == "Return one number per completion: squeeze(-1) takes the last axis away."
