"""Read and write recipes.

Precedence, lowest first: the defaults in ``rsoup.recipe``, the recipe file, ``--set section.key=value``, named flags.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rsoup.errors import RecipeError, did_you_mean, reason_of
from rsoup.recipe import Recipe, RewardSection
from rsoup.recipe_yaml import parse_yaml, quote
from rsoup.rewards import complete_reward

CHECKOUT_RECIPES = Path(__file__).parent.parent / "recipes"
INSTALLED_RECIPES = Path(sysconfig.get_path("data")) / "share" / "rewarded-soups" / "recipes"


EITHER = {"training.steps": "epochs", "training.epochs": "steps", "seed": "seeds", "seeds": "seed"}
"""Keys that replace a neighbour."""


def _set(content: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = content.get(section)
        if inner is None:
            inner = content[section] = {}
        if isinstance(inner, list) and all(isinstance(item, str) for item in inner):  # rewards: [a, b]
            inner = content[section] = dict.fromkeys(inner)
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {dotted}: {section} is not a section.", "Give section.key=value.")
        content = inner
    content[key] = value
    content.pop(EITHER.get(dotted, ""), None)


def _describe(problem: ValidationError, where: str, given: Mapping[str, str]) -> RecipeError:
    """Turn the first error of a validation into one line what and one line what to do.

    A misspelt key comes first: a missing one may be its consequence. What was ``given`` on the command line is
    looked for there, not in the file.
    """
    errors = problem.errors()
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    source = next((source for key, source in given.items() if f"{path}.".startswith(f"{key}.")), None)
    where, correct = source or where, "Give another value." if source else "Correct the recipe and try again."
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        if " " in key:
            return RecipeError(
                f"{where}: unknown key {path}.", "If it belongs to a text, quote that: in { } a comma ends it."
            )
        return RecipeError(f"{where}: unknown key {path}.", did_you_mean(key, _known_keys(error["loc"][:-1])))
    if error["type"] == "missing":
        flag = {"model": "--model NAME", "task": "--task NAME or --data FILE", "rewards": "--reward NAME"}
        return RecipeError(
            f"{where}: {path} is missing.", f"Add it to the recipe, or give {flag.get(path, f'--set {path}=...')}."
        )
    message, _, hint = error["msg"].removeprefix("Value error, ").partition("\n")
    if error["type"] == "value_error":
        return RecipeError(f"{where}: {f'{path}: ' if path else ''}{message}.", hint or correct)
    got = error["input"]
    hint = f"Write {path} without quotes." if isinstance(got, str) and _is_number(got) else correct
    if error["type"] == "string_type" and not isinstance(got, list):
        hint = (
            f"--set '{path}=\"...\"' gives a text."
            if source and source.startswith("--set")
            else quote(path.rpartition(".")[2])
        )
    return RecipeError(f"{where}: {path} is {got!r}: {message[0].lower()}{message[1:]}.", hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _section_in(annotation: Any) -> Any:
    """Return what a field holds, if it holds anything."""
    inner = [own for own in get_args(annotation) if own is not NoneType]
    return inner[0] if len(inner) == 1 else annotation


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = _section_in(field.annotation) if field is not None else RewardSection
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def parse_recipe(content: Mapping[str, Any], where: str, given: Mapping[str, str] | None = None) -> Recipe:
    """Validate the content of a recipe and fill in what the registry knows.

    In errors ``where`` names it, and ``given`` says which keys came from elsewhere (dotted key to source).
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as problem:
        raise _describe(problem, where, given or {}) from problem
    try:
        rewards = {name: complete_reward(name, section, recipe.task.name) for name, section in recipe.rewards.items()}
    except RecipeError as problem:
        raise RecipeError(f"{where}: {problem.message}", problem.hint) from problem
    return recipe.model_copy(update={"rewards": rewards})


def parse_recipe_text(text: str, where: str) -> Recipe:
    """Return the recipe that a text is, as it would be read from a file."""
    content = parse_yaml(text, where)
    return parse_recipe(content if isinstance(content, dict) else {}, where)


def parse_reward_section(content: Mapping[str, Any], where: str) -> RewardSection:
    """Validate the settings of a single reward."""
    try:
        return RewardSection.model_validate(content)
    except ValidationError as problem:
        raise _describe(problem, where, {}) from problem


def load_recipe(path: Path | None, settings: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply ``section.key=value`` settings and then flags (dotted key to value; None is not given).

    Without a path the recipe is made of settings and flags alone.
    """
    settings, flags = list(settings), flags or {}
    return parse_recipe(recipe_content(path, settings, flags), source_name(path), sources(settings, flags))


def sources(settings: Iterable[str], flags: Mapping[str, Any]) -> dict[str, str]:
    """Return what errors call the source of each key that the command line gives."""
    told = {key.strip(): f"--set {_without_key(setting)}" for setting in settings for key in setting.split("=")[:1]}
    return told | {key: "the flags" for key, value in flags.items() if value is not None}


def _without_key(setting: str) -> str:
    """Return a setting as it may be shown: a key that was given by mistake is in no message."""
    name, _, _ = setting.partition("=")
    return f"{name}=..." if name.strip().endswith("api_key") else setting


def source_name(path: Path | None) -> str:
    """Return what errors call the source of a recipe."""
    return str(path) if path else "the flags"


def recipe_content(
    path: Path | None, settings: Iterable[str], flags: Mapping[str, Any], start: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a recipe's content (or that of ``start``) with settings and flags applied, not yet validated."""
    content: Any = dict(start or {})
    where = source_name(path)
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            reason = reason_of(problem) if isinstance(problem, OSError) else "it is not UTF-8 text"
            raise RecipeError(
                f"{path}: the recipe cannot be read ({reason}).",
                "Check the path; rsoup recipes lists the bundled ones.",
            ) from problem
        content = parse_yaml(text, where)
    if not isinstance(content, dict):
        raise RecipeError(
            f"{where}: is not a recipe: the top level has to be a mapping.", "See rsoup recipes quickstart."
        )
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip(". "):
            raise RecipeError(f"--set {setting}: is not section.key=value.", "For example: --set training.steps=20")
        _set(content, key.strip(), parse_yaml(value, f"--set {setting}"))
    for key, value in flags.items():
        if value is not None:
            _set(content, key, value)
    return content


def bundled_recipes() -> dict[str, Path]:
    """Return the recipes that come with rsoup, by name."""
    folder = CHECKOUT_RECIPES if CHECKOUT_RECIPES.is_dir() else INSTALLED_RECIPES
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Return the path of a recipe given as a path or as the name of a bundled one."""
    path = Path(name)
    if path.is_file():
        return path
    bundled = bundled_recipes()
    if name in bundled:
        return bundled[name]
    raise RecipeError(f"{name}: there is no such recipe.", did_you_mean(path.stem, bundled))


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML: every default and override filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
