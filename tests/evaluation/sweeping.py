"""Run a sweep of the tiny model and read back what it left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rsoup.evaluation.results import RESULTS, Results, Samples, read_results, read_samples
from rsoup.evaluation.sweep import evaluate
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from tiny import POSTS


class Recording(Silent):
    """Notes the point of each prompt that was completed, and what was said; interrupts after some, if told to."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.completed: list[str] = []
        self.said: list[str] = []
        self._limit = interrupt_after

    def advance(self, note: str = "") -> None:
        self.completed.append(note)
        if len(self.completed) == self._limit:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.said.append(text)


def recipe_of(content: dict[str, Any], **evaluation: Any) -> Recipe:
    """Return the recipe with other settings of the evaluation."""
    return parse_recipe({**content, "evaluation": {**content["evaluation"], **evaluation}}, "tiny")


def sweep(
    content: dict[str, Any],
    sources: Sequence[str | Path],
    out: Path,
    progress: Silent | None = None,
    *,
    trajectory: Path | None = None,
    **evaluation: Any,
) -> tuple[Results, Samples]:
    """Evaluate and read back what was written."""
    evaluate(resolve(recipe_of(content, **evaluation)), sources, out, progress or Silent(), trajectory=trajectory)
    results = read_results(out / RESULTS)
    return results, read_samples(out / RESULTS, results)


def files(out: Path) -> tuple[bytes, bytes]:
    """Return what an evaluation left, byte by byte."""
    return (out / RESULTS).read_bytes(), (out / "samples.parquet").read_bytes()


def completions(samples: Samples) -> dict[str, tuple[str, ...]]:
    """Return the texts of every point."""
    return {name: point.completions for name, point in samples.points.items()}


def generate(model: Any, tiny_model: Path, tokens: int = 8) -> tuple[str, ...]:
    """Complete the first four posts greedily with transformers, left-padded."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    inputs = tokenizer([f"summary : {post} :" for post in POSTS[:4]], padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    output = model.eval().generate(**inputs, max_new_tokens=tokens, do_sample=False)
    texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return tuple(text.strip() for text in texts)
