"""How many completions fit into memory at once, and what to do when fewer do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from rsoup.errors import ModelError
from rsoup.models.language_model import LanguageModel

LARGEST = {"cpu": 64}
LARGEST_ELSEWHERE = 256
"""Rows beyond which a batch gets no faster."""
SHARE = 0.5
"""Of the free memory that a batch may take; the estimate is rough."""
MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")

GROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Where Linux tells the memory that a container may take and has taken, in versions 2 and 1."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def automatic_batch_size(model: LanguageModel, longest: int, new_tokens: int, group: int, free: int) -> int:
    """Return how many prompts of up to ``longest`` tokens to complete at once, ``group`` times each, in free bytes."""
    most = LARGEST.get(model.device.type, LARGEST_ELSEWHERE) // group
    fitting = SHARE * free / bytes_per_prompt(model, longest, new_tokens, group)
    return max(1, min(most, int(fitting)))


def bytes_per_prompt(model: LanguageModel, longest: int, new_tokens: int, group: int) -> int:
    """Return a rough upper estimate of the memory that completing a prompt takes."""
    config = model.config
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    cached = 2 * config.num_hidden_layers * shared * (getattr(config, "head_dim", None) or width // heads)
    tokens = longest + group * new_tokens
    size = model.model.dtype.itemsize
    activations = longest * (8 * width + 4 * inner) + longest * longest * heads
    logits = 4 * group * model.head.weight.shape[0] * 4
    return int(size * (tokens * cached + activations) + logits)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; of the CPU, within the limits of its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_available(), *_left_in_group()]
    return min(free)


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _left_in_group() -> Iterator[int]:
    for limit, used in GROUP_FILES:
        try:
            texts = [(Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip() for name in (limit, used)]
        except OSError:
            continue
        if texts[0].isdigit():
            yield max(0, int(texts[0]) - int(texts[1]))


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether an exception says that memory has run out; the CPU's allocator raises a plain RuntimeError."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem) for words in MESSAGES)


class Batches:
    """Works through items in batches, halving their size for good whenever memory runs out."""

    def __init__(self, size: int, say: Callable[[str], None]) -> None:
        self.size = size
        self._say = say

    def work(
        self, items: Sequence[Item], function: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Yield each batch with what ``function`` made of it; ModelError if a single item does not fit."""
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                result = function(batch)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                if len(batch) == 1:
                    raise ModelError(
                        "Memory is too small for a single prompt.",
                        "Lower evaluation.max_new_tokens or task.max_prompt_tokens, or set evaluation.dtype.",
                    ) from problem
                result = None
            if result is None:  # outside the handler, so that the failed batch's tensors are let go
                self.size = len(batch) // 2
                self._say(f"A batch of {len(batch)} is too much for the memory; going on with {self.size}.")
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield batch, result
            start += len(batch)
