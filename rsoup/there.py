"""Whether what a recipe or a command names is there, as far as that is told without opening it: no torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from rsoup.adapters.hub import check_source
from rsoup.errors import MissingPackageError, ModelError, RewardError, did_you_mean
from rsoup.hub import folder_or_hub_id
from rsoup.installing import pip_line
from rsoup.models.bundled import BUNDLED, GENERATING, is_generating, packaged_file
from rsoup.recipe import Recipe, RewardSection
from rsoup.rewards.importing import check_file
from rsoup.rewards.judges import explained
from rsoup.tasks import resolve_task
from rsoup.tasks.sources import check_data

__all__ = ["check_ingredients", "check_model", "check_recipe"]


def check_recipe(recipe: Recipe, *, stands_in: bool = False) -> None:
    """Raise RsoupError for what a recipe names that is not there; resolving it would find the same, but later.

    With ``stands_in``, small models and rows take the place of those that are not there.
    """
    task = resolve_task(recipe.task)
    for name, section in recipe.rewards.items():
        _check_reward(name, section, stands_in=stands_in)
    if stands_in:
        return
    for source in (task.data, task.eval_data):
        if source is not None:
            check_data(source)
    check_model(recipe.model.base)
    if recipe.model.start:
        check_source(recipe.model.start)


def check_model(name: str) -> None:
    """Raise RsoupError if a model that generates is not bundled and installed, no folder and no hub id."""
    if is_generating(name):
        packaged_file(name)
    else:
        folder_or_hub_id(name, name, ModelError, f" {did_you_mean(name, GENERATING)}")


def check_ingredients(sources: Iterable[str]) -> None:
    """Raise RsoupError if an adapter or model, which may be given as NAME=FOLDER, is neither there nor a hub id."""
    for given in sources:
        _, equals, place = given.partition("=")
        source = place if equals and not Path(given).exists() else given
        if source not in BUNDLED:
            check_source(source)


def _check_reward(name: str, section: RewardSection, *, stands_in: bool) -> None:
    judge = section.judge
    if section.function is not None:
        check_file(section.function)
    elif stands_in:
        return
    elif judge is not None and judge.base_url is not None:
        if find_spec("openai") is None:
            what = f"The reward {name}: a judge at an endpoint"
            raise MissingPackageError("openai", what, pip_line("judge"))
    elif judge is not None:
        with explained(name):
            check_model(judge.model)
    elif section.model is not None:
        folder_or_hub_id(section.model, f"The reward {name}: {section.model}", RewardError)
