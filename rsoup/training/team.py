"""The processes that train together, on accelerate; a process started alone is a team of one.

Each process holds the whole policy, samples and scores its share of every mini-batch, and adds its part to sums over
all: tokens, advantages, gradients. So several processes compute what one would, up to rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import Tensor, nn

from rsoup.errors import MissingPackageError, RecipeError, RsoupError

PLAIN = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU}
"""Ways of running in which every process holds the whole model."""


class Team:
    """This process among those that ``accelerate launch`` started; ``trackers`` get metrics under ``folder``."""

    def __init__(self, trackers: Sequence[str] = (), folder: Path | None = None) -> None:
        for tracker in trackers:
            if importlib.util.find_spec(tracker) is None:
                raise MissingPackageError(tracker, f"training.report_to {tracker}", f"pip install {tracker}")
        self._accelerator = Accelerator(log_with=list(trackers) or None, project_dir=folder)
        if self._accelerator.distributed_type not in PLAIN:
            raise RecipeError(
                f"accelerate is set to {self._accelerator.distributed_type.value}; rsoup trains with data parallelism.",
                "Use a configuration with MULTI_GPU, MULTI_CPU or NO, as in recipes/accelerate/.",
            )
        if self._accelerator.mixed_precision not in ("no", "bf16"):
            raise RecipeError(
                f"accelerate is set to mixed precision {self._accelerator.mixed_precision}.",
                "Use bf16 or no; model.dtype float16 keeps narrow weights where bf16 is slow.",
            )

    @property
    def rank(self) -> int:
        """The number of this process."""
        rank: int = self._accelerator.process_index
        return rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        size: int = self._accelerator.num_processes
        return size

    @property
    def leads(self) -> bool:
        """Tell whether this process writes files and reports."""
        return self.rank == 0

    def share(self, prompts: int, mini_batches: int) -> Tensor:
        """Return which of a step's prompts are this process's: an equal part of each mini-batch, in order."""
        if prompts % (mini_batches * self.size):
            raise RecipeError(
                f"training.prompts_per_step ({prompts}) cannot be split into {mini_batches} mini-batches "
                f"for {self.size} processes.",
                f"Make it a multiple of {mini_batches * self.size}.",
            )
        return torch.arange(prompts).view(mini_batches, self.size, -1)[:, self.rank].flatten()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size == 1:
            return values
        result: Tensor = self._accelerator.reduce(values.clone(), reduction="sum")
        return result

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Return the values of all processes, one after the other. (n, ...) -> (n * size, ...)."""
        if self.size == 1:
            return values
        gathered = self._accelerator.gather(torch.from_numpy(values).to(self._accelerator.device))
        result: np.ndarray = gathered.cpu().numpy()
        return result

    def listed(self, value: Any) -> list[Any]:
        """Return a value of each process, of any kind."""
        return [value] if self.size == 1 else list(gather_object([value]))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # nothing of this process's share reached it
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the precision that accelerate is set to within the block, in which no factor may change."""
        context: AbstractContextManager[None] = self._accelerator.autocast()
        return context

    def agree(self, choice: str) -> str:
        """Return what the leading process chose."""
        choices = [choice]
        if self.size > 1:
            broadcast_object_list(choices)
        return choices[0]

    def decides(self, answer: Callable[[], bool]) -> bool:
        """Return the leading process's answer to a question that only it looks into, or raise what it raised."""
        found: list[Any] = [None]
        if self.leads:
            try:
                found = [answer()]
            except Exception as problem:
                if self.size == 1:
                    raise
                found = [problem if isinstance(problem, RsoupError) else RuntimeError(str(problem))]
        if self.size > 1:
            broadcast_object_list(found)
        if isinstance(found[0], Exception):
            raise found[0]
        return bool(found[0])

    def wait(self) -> None:
        """Wait for the others."""
        self._accelerator.wait_for_everyone()

    def begin_log(self, settings: Mapping[str, Any]) -> None:
        """Open the trackers."""
        if self._accelerator.log_with:
            self._accelerator.init_trackers("rsoup", config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give a step's numbers to the trackers."""
        if self._accelerator.log_with:
            self._accelerator.log(dict(values), step=step)

    def end_log(self) -> None:
        """Close the trackers."""
        for tracker in self._accelerator.trackers:
            tracker.finish()
