"""What the adapters of a run are called, and where the run keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsoup.mixing import lattice
from rsoup.recipe import Recipe

RECIPE = "recipe.yaml"
"""What a run's recipe is called in its folder."""


@dataclass(frozen=True)
class Training:
    """An adapter of a recipe: an expert on one reward, or a baseline (morl) on several."""

    name: str
    weights: dict[str, float]
    kind: Literal["expert", "morl"]


def adapter_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps an adapter."""
    return recipe.folder / "adapters" / name


def checkpoint_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps the checkpoints of an unfinished training."""
    return recipe.folder / "checkpoints" / name


def trajectory_folder(recipe: Recipe, name: str) -> Path:
    """Return where a run keeps the adapters along a training."""
    return recipe.folder / "trajectory" / name


def step_name(step: int) -> str:
    """Return what the folder of an adapter along its training is called."""
    return f"step-{step:06d}"


def morl_name(weights: Mapping[str, float], rewards: Mapping[str, Any]) -> str:
    """Return the name of a baseline: morl-0.40-0.60, in the order of the recipe's rewards."""
    shown = [weights.get(name, 0.0) for name in rewards]
    return "-".join(["morl", *(f"{weight:.2f}" if round(weight, 2) == weight else f"{weight:g}" for weight in shown)])


def inner_weights(rewards: Sequence[str], steps: int) -> list[dict[str, float]]:
    """Return every weighting of rewards in steps of 1 / ``steps``, but those of one reward alone: they are experts."""
    points = [dict(zip(rewards, point, strict=True)) for point in lattice(len(rewards), steps)]
    return [point for point in points if max(point.values()) < 1]
