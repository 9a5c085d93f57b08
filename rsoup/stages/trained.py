"""Which trained adapters the folder of a run holds."""

from __future__ import annotations

from pathlib import Path

from rsoup.errors import AdapterError
from rsoup.recipe import Recipe
from rsoup.stages.graph import trainings_of
from rsoup.training.folders import adapter_folder


def adapters_of(recipe: Recipe, *, needed: bool = True) -> list[Path]:
    """Return the trained adapters of a run: the recipe's, then other baselines there.

    AdapterError if there is none and one is ``needed``.
    """
    planned = [adapter_folder(recipe, training.name) for training in trainings_of(recipe)]
    trained = [folder for folder in planned if folder.is_dir()]
    trained += [adapter_folder(recipe, name) for name in other_baselines(recipe)]
    if needed and not trained and recipe.models:
        raise AdapterError(
            f"{recipe.folder}: mixes whole models, and trains no adapter.",
            "Write the mix you want (rsoup mix), and use it as any model; or give --adapters A B.",
        )
    if needed and not trained:
        raise AdapterError(f"{recipe.folder}: holds no trained adapter.", "Train them first, or give --adapters A B.")
    return trained


def ingredients_of(recipe: Recipe, *, needed: bool = True) -> list[str | Path]:
    """Return what a run mixes: the models of its recipe as NAME=SOURCE, else its trained adapters."""
    if recipe.models:
        return [f"{name}={source}" for name, source in recipe.models.items()]
    return [*adapters_of(recipe, needed=needed)]


def other_baselines(recipe: Recipe) -> list[str]:
    """Return the baselines in the folder of a run that its recipe does not name."""
    planned = {training.name for training in trainings_of(recipe)}
    found = sorted((recipe.folder / "adapters").glob("morl-*"))
    return [folder.name for folder in found if folder.is_dir() and folder.name not in planned]
