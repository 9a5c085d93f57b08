"""The model card of a trained adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsoup import __version__
from rsoup.models.bundled import BUNDLED
from rsoup.recipe import Recipe

PAPER = "https://arxiv.org/abs/2306.04488"

WHAT = {
    "init": "The untrained LoRA adapter from which all adapters of a run start",
    "expert": "A LoRA adapter trained with {algo} on one reward",
    "morl": "A LoRA adapter trained with {algo} on a weighted sum of rewards (the baseline of rewarded soups)",
}


def training_card(recipe: Recipe, provenance: dict[str, Any], metrics: Path | None) -> str:
    """Return a README.md with the front matter that the Hugging Face hub reads."""
    base = recipe.model.base
    hub_id = BUNDLED[base].source if base in BUNDLED else base
    front = ["library_name: peft", "pipeline_tag: text-generation", "tags:", "- lora", "- rewarded-soups", "- rlhf"]
    if hub_id.count("/") == 1 and not Path(base).exists():
        front = [f"base_model: {json.dumps(hub_id)}", "base_model_relation: adapter", *front]
    lines = ["---", *front, "---", "", f"# {provenance['name']}", ""]
    what = WHAT[provenance["kind"]].format(algo=recipe.training.algo.upper())
    lines += [f"{what}, by [rewarded soups]({PAPER}) with rsoup {__version__}.", ""]
    lines += [f"- base model: {base}", f"- seed: {provenance['seed']}"]
    if metrics is not None:
        weights = ", ".join(
            f"{name} {weight:g}{' (lower is better)' if name in recipe.minimized else ''}"
            for name, weight in provenance["rewards"].items()
        )
        lines += [f"- rewards: {weights}", f"- steps: {provenance['steps']}", f"- seconds: {provenance['seconds']:.0f}"]
        lines += ["", *_score_table(metrics)]
    return "\n".join(lines) + "\n"


def _score_table(metrics: Path) -> list[str]:
    """Return the mean scores of the first and the last step's completions as a Markdown table."""
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    first, last = steps[0]["scores"], steps[-1]["scores"]
    rows = [f"| {name} | {_cell(first[name])} | {_cell(last[name])} |" for name in first]
    return ["| score while training | first step | last step |", "|---|---|---|", *rows]


def _cell(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"
