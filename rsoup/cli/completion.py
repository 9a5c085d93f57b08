"""What the shell offers for a half-typed word: names of recipes, rewards, adapters. No model library is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

MOST = 200
"""Folders that are looked through at most: a word is completed at once or not at all."""


METHODS = {
    "factors": "adapters: the average of A and of B (the default)",
    "cat": "adapters: the exact mix, at the sum of the ranks",
    "svd": "adapters: the exact mix, cut to a rank",
    "linear": "models: the mean of the weights (the default)",
    "slerp": "along great circles",
    "task_arithmetic": "models: the sum of the differences from --base",
    "ties": "trimmed, with elected signs",
    "dare": "entries dropped at random",
}
MEASURED = ("factors", "cat", "linear", "slerp", "task_arithmetic", "ties", "dare")
"""Those that ``rsoup eval`` mixes by in memory."""


def offering(*names: str) -> Callable[[str], list[str]]:
    """Return what offers those of some names that a word begins."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[tuple[str, str]]:
    """Offer the ways to mix, and whether they are for adapters, for models or for both."""
    return [(name, what) for name, what in METHODS.items() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Offer the bundled recipes, and recipe files and folders that the word begins."""
    from rsoup.recipe_file import bundled_recipes
    from rsoup.recipe_headers import read_header

    bundled = {name: read_header(path).what for name, path in bundled_recipes().items() if name.startswith(incomplete)}
    return [*bundled.items(), *((path, "") for path in _paths(incomplete, (".yaml", ".yml")))]


def complete_reward(incomplete: str) -> list[tuple[str, str]]:
    """Offer the registry, and the names of functions in the Python file that the word names."""
    from rsoup.rewards import REWARDS
    from rsoup.starting.rewarding import functions_in

    file, colon, _ = incomplete.rpartition(":")
    if colon:
        return [(f"{file}:{name}", "") for name in functions_in(Path(file)) if f"{file}:{name}".startswith(incomplete)]
    known = {name: entry.returns for name, entry in REWARDS.items() if name.startswith(incomplete)}
    return [*known.items(), *((path, "") for path in _paths(incomplete, (".py",)))]


def complete_adapter(incomplete: str) -> list[str]:
    """Offer the adapters of runs here, and folders that the word begins."""
    found = (str(folder) for folder in _adapters(Path("runs")))
    return list(dict.fromkeys([*(name for name in found if name.startswith(incomplete)), *_paths(incomplete, ())]))


def complete_run(incomplete: str) -> list[str]:
    """Offer the folders of runs here, and folders that the word begins."""
    runs = (str(path.parent) for path in _some(Path("runs").glob("*/recipe.yaml")))
    return list(dict.fromkeys([*(name for name in runs if name.startswith(incomplete)), *_paths(incomplete, ())]))


def complete_task(incomplete: str) -> list[str]:
    """Offer the bundled tasks."""
    from rsoup.tasks import TASKS

    return [name for name in TASKS if name.startswith(incomplete)]


def complete_base(incomplete: str) -> list[str]:
    """Offer the bundled models, and folders that the word begins."""
    from rsoup.models.bundled import BUNDLED

    return [*(name for name in BUNDLED if name.startswith(incomplete)), *_paths(incomplete, ())]


def _adapters(runs: Path) -> Iterator[Path]:
    for config in _some(runs.glob("*/adapters/*/adapter_config.json")):
        yield config.parent


def _some(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the first of some paths."""
    for _, path in zip(range(MOST), paths, strict=False):
        yield path


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Return the folders, and the files with these endings, that a word begins; folders end with a slash."""
    head, slash, name = incomplete.rpartition("/")
    folder = Path(f"{head}{slash}" or ".").expanduser()
    found = []
    try:
        for path in _some(folder.iterdir()):
            if not path.name.startswith(name) or (path.name.startswith(".") and not name.startswith(".")):
                continue
            if path.is_dir():
                found.append(f"{head}{slash}{path.name}/")
            elif path.suffix in endings:
                found.append(f"{head}{slash}{path.name}")
    except OSError:
        return []
    return sorted(found)
