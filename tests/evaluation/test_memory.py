"""Batches shrink when memory runs out, and start at what fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from rsoup.errors import ModelError
from rsoup.evaluation.memory import Batches, automatic_batch_size, bytes_per_prompt, free_bytes, is_out_of_memory
from rsoup.models.language_model import LanguageModel


def fitting(limit: int, problem: Exception) -> Callable[[Sequence[int]], int]:
    """Return work that fails on batches of more than ``limit``."""

    def work(batch: Sequence[int]) -> int:
        if len(batch) > limit:
            raise problem
        return sum(batch)

    return work


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_batches_are_halved_until_they_fit_and_nothing_is_lost(problem: Exception) -> None:
    said: list[str] = []
    batches = Batches(16, said.append)
    done = list(batches.work(range(21), fitting(4, problem)))
    assert [item for batch, _ in done for item in batch] == list(range(21))
    assert [len(batch) for batch, _ in done] == [4, 4, 4, 4, 4, 1]
    assert said == [
        "A batch of 16 is too much for the memory; going on with 8.",
        "A batch of 8 is too much for the memory; going on with 4.",
    ]
    assert [len(batch) for batch, _ in batches.work(range(8), sum)] == [4, 4]  # for good


def test_a_prompt_that_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(ModelError, match="too small for a single prompt") as caught:
        list(Batches(4, print).work(range(3), fitting(0, MemoryError())))
    assert "max_new_tokens" in caught.value.hint


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(Batches(4, print).work(range(3), fitting(0, RuntimeError("shapes do not match"))))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_allocation_that_really_fails_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_the_size_follows_the_memory(language_model: LanguageModel) -> None:
    """Half of the free memory is used, for 64 rows at most on a CPU."""
    each = bytes_per_prompt(language_model, 20, 8, 1)
    sizes = [automatic_batch_size(language_model, 20, 8, 1, free=2 * room * each) for room in (0, 1, 5, 1000)]
    assert sizes == [1, 1, 5, 64]
    assert automatic_batch_size(language_model, 20, 8, 4, free=10_000 * each) == 16


def test_an_estimate_is_not_below_what_the_cache_alone_takes(language_model: LanguageModel) -> None:
    """Two layers of two shared heads of 8 numbers, keys and values, 4 bytes each: 256 bytes a token."""
    assert bytes_per_prompt(language_model, 20, 8, 1) > 28 * 256
    assert bytes_per_prompt(language_model, 40, 8, 1) > bytes_per_prompt(language_model, 20, 8, 1)
    assert bytes_per_prompt(language_model, 20, 8, 4) > bytes_per_prompt(language_model, 20, 8, 1)


def test_free_memory_is_a_number_of_bytes() -> None:
    free = free_bytes(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 50
