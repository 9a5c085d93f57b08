"""Generate with vLLM, which serves each mixed adapter as a LoRA of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rsoup import mixing
from rsoup.evaluation.cache import Completion
from rsoup.models.load import model_source
from rsoup.models.sampling import generator_for
from rsoup.models.vllm import VllmEngine
from rsoup.recipe import Recipe
from rsoup.resolve import Base
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses, unfinished_thoughts


class Vllm:
    """A vLLM engine with the base model in it."""

    def __init__(self, recipe: Recipe, base: Base, dtype: str, rank: int) -> None:
        self._recipe, self._tokenizer = recipe, base.tokenizer
        source, revision = model_source(base.name), recipe.model.revision
        self._engine = VllmEngine(source, revision, dtype=dtype, seed=recipe.seed, rank=rank)

    def complete(
        self, soup: mixing.Soup | None, examples: Sequence[Example], on_prompt: Callable[[], None]
    ) -> dict[str, list[Completion]]:
        """Complete prompts with base plus a mix, by the id of the example."""
        with tempfile.TemporaryDirectory() as folder:
            outputs = self._engine.complete(
                [example.tokens for example in examples],
                [self._sampling(example) for example in examples],
                None if soup is None else mixing.write(soup, Path(folder) / "soup"),
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

    def _sampling(self, example: Example) -> dict[str, Any]:
        settings = self._recipe.evaluation
        return {
            "n": settings.samples,
            "temperature": settings.temperature,
            "max_tokens": settings.max_new_tokens,
            "seed": generator_for(self._recipe.seed, f"evaluation/{example.id}", 0).initial_seed() >> 32,
        }
