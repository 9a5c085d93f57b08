"""What is asked to be served, and what of it is told without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsoup.adapters.config import CONFIG_FILE
from rsoup.errors import RecipeError
from rsoup.recipe import Recipe
from rsoup.recipe_file import bundled_recipes, find_recipe, load_recipe
from rsoup.stages.trained import adapters_of
from rsoup.there import check_ingredients, check_model
from rsoup.training.folders import RECIPE


@dataclass(frozen=True)
class Source:
    """What is asked to be served; what is None is as the run has it."""

    run: str | None = None
    model: str | None = None
    adapters: Sequence[str] = ()
    method: Literal["factors", "cat"] | None = None
    dtype: str | None = None
    allow_different_starts: bool = False


def check_source(source: Source) -> None:
    """Raise RsoupError if there is nothing to serve, or not where it is said to be."""
    recipe = None if source.run is None else recipe_of(source.run)
    base = base_of(source, recipe)
    check_ingredients(source.adapters)
    if recipe is not None and not source.adapters:
        adapters_of(recipe)
    check_model(base)


def base_of(source: Source, recipe: Recipe | None) -> str:
    """Return the name of the base model; RecipeError if nobody says it."""
    base = source.model or (recipe.model.base if recipe is not None else None)
    if base is None:
        what = "The base model of the adapters is not given." if source.adapters else "There is nothing to serve."
        raise RecipeError(what, "Give the folder of a run, or --model BASE --adapters A B.")
    return base


def recipe_of(run: str) -> Recipe:
    """Return the recipe of a run's folder (which may have been moved since), or of a recipe's file or name."""
    folder = Path(run)
    if not folder.is_dir():
        if not (folder.is_file() or run in bundled_recipes()):
            raise RecipeError(f"{run}: is neither the folder of a run nor a recipe.", "Give the one rsoup run wrote.")
        return load_recipe(find_recipe(run))
    if (folder / RECIPE).is_file():
        return load_recipe(folder / RECIPE, flags={"output": str(folder)})
    hint = "Give the folder that rsoup run wrote, or --model BASE --adapters A B."
    if (folder / CONFIG_FILE).is_file():
        hint = f"It is an adapter: give --model BASE --adapters {run}."
    raise RecipeError(f"{folder}: has no {RECIPE}.", hint)
