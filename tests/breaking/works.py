"""The commands that are disturbed, each on small inputs, and what they leave."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tiny import build_tiny_model, recipe_content, write_recipe

CLOCKS = ("timing.json", "cost.pdf", "cost.png", "cost.svg", "index.html")
"""Files of clock readings, and pictures of them."""
TIMED = ("rsoup.json", "metrics.jsonl", "completions.json")
"""Files with clock readings beside what has to be the same."""
READINGS = ("seconds", "read", "files", "base_files")
"""What they are called: seconds, and the sizes, times and inodes that tell whether a model's files have changed."""
HIDDEN = (".lock", ".locks")
"""What is there for locks, and empty."""


@dataclass(frozen=True)
class Stock:
    """What commands are given: models, trained adapters, data."""

    folder: Path

    @property
    def model(self) -> Path:
        """The base."""
        return self.folder / "model"

    @property
    def other(self) -> Path:
        """A model made from the base."""
        return self.folder / "other"

    @property
    def run(self) -> Path:
        """A finished run on the base."""
        return self.folder / "run"

    @property
    def adapters(self) -> list[Path]:
        """The experts of the run."""
        return [self.run / "adapters" / name for name in ("positive", "brief")]


def build_stock(folder: Path) -> Stock:
    """Make what commands are given."""
    from rsoup import experiment
    from rsoup.progress import Silent
    from rsoup.recipe_file import load_recipe
    from rsoup.resolve import resolve

    stock = Stock(folder)
    build_tiny_model(stock.model, seed=0)
    recipe = write_recipe(folder / "recipe.yaml", recipe_content(folder, stock.model))
    experiment.run(resolve(load_recipe(recipe)), Silent())
    make_other(stock)
    return stock


def make_other(stock: Stock) -> None:
    """Make a model from the base."""
    weights = Path(shutil.copytree(stock.model, stock.other)) / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})


@dataclass(frozen=True)
class Work:
    """A command: its ``words`` in a folder, after ``lay`` has put its recipe there; ``out`` is what it makes there."""

    name: str
    words: Callable[[Stock, Path], list[Any]]
    out: str = "out"
    changes: Callable[[dict[str, Any]], None] | None = None

    def lay(self, stock: Stock, folder: Path, **settings: Any) -> None:
        """Put a recipe into a new folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        content = recipe_content(folder, stock.model)
        if self.changes is not None:
            self.changes(content)
        write_recipe(folder / "recipe.yaml", {**content, **settings})

    def files(self, folder: Path) -> dict[str, bytes]:
        """Return what the command has made, without clock readings and locks."""
        return files_in(folder / self.out)


def _longer(content: dict[str, Any]) -> None:
    content["training"] |= {"steps": 4, "save_every": 2}


def _by_grpo(content: dict[str, Any]) -> None:
    content["training"] |= {"algo": "grpo"}
    del content["training"]["ppo"]


def _mix(*more: Any) -> Callable[[Stock, Path], list[Any]]:
    return lambda stock, folder: ["mix", *stock.adapters, *more, "-o", folder / "out"]


def _into(stock: Stock, folder: Path) -> list[Any]:
    return ["mix", *stock.adapters, "--lambda", "0.3", "--into", stock.model, "-o", folder / "out"]


def _models(stock: Stock, folder: Path) -> list[Any]:
    return ["mix", stock.model, stock.other, "--lambda", "0.3", "-o", folder / "out"]


def _extract(stock: Stock, folder: Path) -> list[Any]:
    return ["mix", "--extract", stock.other, "--base", stock.model, "--rank", "2", "-o", folder / "out"]


def _eval(stock: Stock, folder: Path) -> list[Any]:
    return ["eval", folder / "recipe.yaml", "--adapters", *stock.adapters, "-o", folder / "out"]


def _whole(stock: Stock, folder: Path) -> list[Any]:
    models = [f"a={stock.model}", f"b={stock.other}"]
    return ["eval", folder / "recipe.yaml", "--models", *models, "-o", folder / "out"]


WORKS = {
    work.name: work
    for work in (
        Work("run", lambda _, folder: ["run", folder / "recipe.yaml"], "run"),
        Work("train", lambda _, folder: ["train", folder / "recipe.yaml", "-r", "positive"], "run", _longer),
        Work("grpo", lambda _, folder: ["train", folder / "recipe.yaml", "-r", "positive"], "run", _by_grpo),
        Work("eval", _eval),
        Work("eval-models", _whole),
        Work("mix", _mix("--lambda", "0.3")),
        Work("grid", _mix("--grid", "2")),
        Work("into", _into),
        Work("models", _models),
        Work("extract", _extract),
        Work("pareto", lambda stock, folder: ["pareto", stock.run, "-o", folder / "out"]),
    )
}


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder, without clock readings and locks."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_lock(path, folder)]
    return {str(path.relative_to(folder)): timeless(path) for path in paths if path.name not in CLOCKS}


def _is_lock(path: Path, folder: Path) -> bool:
    return any(part in HIDDEN for part in path.relative_to(folder).parts)


def timeless(path: Path) -> bytes:
    """Return the bytes of a file without its clock readings."""
    content = path.read_bytes()
    if path.name == "README.md":
        return re.sub(rb"- seconds: \d+", b"", content)
    if path.name == "pareto.json":
        return re.sub(rb'"[a-z_]*seconds[a-z_]*": [\d.e-]+', b"", content)
    if path.name not in TIMED:
        return content
    try:
        rows = [json.loads(line) for line in (content.splitlines() if path.suffix == ".jsonl" else [content])]
        return json.dumps([{**row, **dict.fromkeys(READINGS)} for row in rows]).encode()
    except (ValueError, TypeError):  # it is broken, and compared as it is
        return content


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Say which files are missing, too many, or other than expected."""
    told: Iterable[tuple[str, Iterable[str]]] = (
        ("missing", expected.keys() - found.keys()),
        ("too many", found.keys() - expected.keys()),
        ("other", (name for name in expected.keys() & found.keys() if expected[name] != found[name])),
    )
    return [f"{kind}: {name}" for kind, names in told for name in sorted(names)]
