"""What a sweep mixes: adapters of one base, or whole models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.adapters.companions import chat_template_of
from rsoup.errors import AdapterError, RecipeError
from rsoup.evaluation.records import AdapterKind
from rsoup.mixing.checkpoints import RULES, Model, are_models, read_model
from rsoup.models.bundled import BUNDLED, bundled_folder
from rsoup.recipe import EvaluationSection

BASE = "base"
"""The id of the point without adapter, and the name of the base as an ingredient."""

Ingredient = Adapter | Model


def read_ingredients(sources: Sequence[str | Path]) -> dict[str, Ingredient]:
    """Read adapters, or models (folders, hub ids, or NAME=FOLDER), by their names; both together are refused."""
    named = [_named(source) for source in sources]
    models = bool(named) and are_models([folder for _, folder in named])
    found: dict[str, Ingredient] = {}
    for (name, folder), source in zip(named, sources, strict=True):
        own: Ingredient = read_model(folder) if models else mixing.read(folder)
        own = replace(own, name=name) if name else own
        what = "models" if models else "adapters"
        if own.name in found:
            raise AdapterError(f"Two {what} are called {own.name}.", f"Name them: --{what} first=FOLDER second=FOLDER.")
        if own.name == BASE:
            raise AdapterError(f"{source}: what is called {BASE} would be taken for the base.", "Rename the folder.")
        found[own.name] = own
    return found


def other_templates(ingredients: Mapping[str, Ingredient], own: Any) -> list[str]:
    """Say which adapters lie beside another chat template than that of the base, ``own``, which makes the prompts."""
    found = {name: chat_template_of(adapter.path) for name, adapter in adapters_in(ingredients).items() if adapter.path}
    differ = [name for name, text in found.items() if text is not None and text.strip() != str(own).strip()]
    if not differ:
        return []
    have = "has a chat template of its own" if len(differ) == 1 else "have chat templates of their own"
    return [f"{', '.join(differ)} {have}; prompts are made with the base's."]


def kind_of(ingredient: Ingredient) -> AdapterKind:
    """Return what an ingredient is; an adapter made elsewhere, or of a kind not known here, is an expert."""
    if isinstance(ingredient, Model):
        return "model"
    kind = ingredient.provenance.kind if ingredient.provenance else None
    known: dict[str | None, AdapterKind] = {"init": "init", "morl": "morl", "soup": "soup"}
    return known.get(kind, "expert")


def adapters_in(ingredients: Mapping[str, Ingredient]) -> dict[str, Adapter]:
    """Return the adapters among ingredients."""
    return {name: own for name, own in ingredients.items() if isinstance(own, Adapter)}


def models_in(ingredients: Mapping[str, Ingredient]) -> dict[str, Model]:
    """Return the models among ingredients."""
    return {name: own for name, own in ingredients.items() if isinstance(own, Model)}


def method_for(ingredients: Iterable[Ingredient], settings: EvaluationSection) -> str:
    """Return how ingredients are mixed; RecipeError if the method is not theirs, or another setting."""
    models = any(isinstance(own, Model) for own in ingredients)
    method = settings.method or ("linear" if models else "factors")
    if (method in RULES) is not models:
        what, known = ("whole models", RULES) if models else ("adapters", ("factors", "cat"))
        raise RecipeError(f"evaluation.method: {method} does not mix {what}.", f"Take one of {', '.join(known)}.")
    if models and settings.compare:
        raise RecipeError(
            "evaluation.compare runs adapters side by side on one base, and these are whole models.", "Leave it out."
        )
    if models and settings.engine == "vllm":
        raise RecipeError("evaluation.engine: vllm serves adapters, and these are whole models.", "Use transformers.")
    return method


def _named(source: str | Path) -> tuple[str | None, str | Path]:
    """Return the name that is given to an ingredient, if one is, and its folder or hub id."""
    name, equals, folder = str(source).partition("=")
    given, place = (name, folder) if equals and not Path(source).exists() else (None, source)
    return given, bundled_folder(str(place)) if place in BUNDLED else place
