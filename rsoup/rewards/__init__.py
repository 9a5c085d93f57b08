"""Rewards: the registry (data only) here, the scorers that load models in the modules beside it."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rsoup.errors import RecipeError, did_you_mean
from rsoup.files import sha256_file, sha256_json
from rsoup.recipe import NAME_PATTERN, RewardSection


@dataclass(frozen=True)
class RewardEntry:
    """A registry entry: what a reward reads and returns, and the scorer class ``module:attribute`` that computes it."""

    scorer: str
    reads: str
    returns: str


REWARDS = {
    "positive": RewardEntry(
        scorer="rsoup.rewards.lexicon:Sentiment",
        reads="the completion",
        returns="VADER compound sentiment, -1 (negative) to 1 (positive)",
    ),
    "faithful": RewardEntry(
        scorer="rsoup.rewards.similarity:Similarity",
        reads="the prompt's post and the completion",
        returns="cosine of their MiniLM embeddings, -1 to 1",
    ),
    "brief": RewardEntry(
        scorer="rsoup.rewards.lexicon:Brevity",
        reads="the completion",
        returns="minus the number of its words",
    ),
}


def registry_entry(name: str) -> RewardEntry:
    """Return the registry entry of that name."""
    if name not in REWARDS:
        raise RecipeError(
            f"There is no reward {name!r} in the registry.",
            f"{did_you_mean(name, REWARDS)} Of your own: a classifier's folder or hub id, file.py:function.",
        )
    return REWARDS[name]


def reward_identity(name: str, section: RewardSection) -> dict[str, Any]:
    """Return what decides the scores of a reward, to be hashed; a function's file counts by its content."""
    identity = section.model_dump(exclude={"batch_size"})
    if section.model is None and section.function is None:
        identity["use"] = section.use or name
    if section.function is not None:
        identity["file"] = _code_sha256(section.function.rpartition(":")[0])
    elif section.model is not None and Path(section.model).expanduser().is_dir():
        identity["files"] = _folder_sha256(Path(section.model).expanduser())
    return identity


def search_working_folder() -> None:
    """Let modules be found in the folder the command is called in, which an installed command does not search."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _code_sha256(source: str) -> str | None:
    """Return the hash of the file of a module, or of a .py file; None if there is none."""
    path: str | None = source
    if not source.endswith(".py"):
        search_working_folder()
        try:
            spec = importlib.util.find_spec(source)
        except (ImportError, ValueError):
            spec = None
        path = spec.origin if spec else None
    return sha256_file(Path(path).expanduser()) if path and Path(path).expanduser().is_file() else None


@cache
def _folder_sha256(folder: Path) -> str:
    """Return a hash over the files of a model folder."""
    return sha256_json([[path.name, sha256_file(path)] for path in sorted(folder.iterdir()) if path.is_file()])


def parse_reward(text: str) -> tuple[str, RewardSection]:
    """Read a reward given on the command line: a registry name, module:function, a model folder or a hub id."""
    if Path(text).expanduser().is_dir():
        return _usable_name(Path(text).resolve().name), RewardSection(model=text)
    if ":" in text:
        return _usable_name(text.rpartition(":")[2]), RewardSection(function=text)
    if "/" in text:
        return _usable_name(text.rstrip("/").rpartition("/")[2]), RewardSection(model=text)
    registry_entry(text)
    return text, RewardSection()


def _usable_name(text: str) -> str:
    if not re.match(NAME_PATTERN, text):
        raise RecipeError(
            f"{text!r} cannot name a reward.", "Give it a name in a recipe: rewards: {name: {model: ...}}."
        )
    return text
