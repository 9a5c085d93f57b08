"""``rsoup mix`` of whole models, and what it shares with that of adapters."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsoup.cli.display import out, say, warn
from rsoup.cli.mixing_check import show_models
from rsoup.errors import AdapterError

if TYPE_CHECKING:
    from rsoup.mixing.checkpoints import Extraction


@dataclass(frozen=True)
class Asked:
    """What the command line asks for: the ingredients, their weights, where to, and in which form.

    ``given`` tells whether weights were given one by one.
    """

    ingredients: list[str]
    weights: list[float] | None
    given: bool
    lam: float | None
    grid: int | None
    output: Path | None
    into: str | None
    base: str | None
    check: bool
    overwrite: bool
    json: bool

    def place(self) -> Path:
        """Return the output folder."""
        if self.output is None:
            raise AdapterError("No output folder is given.", "Add -o DIR, or --check to look without writing.")
        return self.output

    def checked_weights(self) -> list[float] | None:
        """Return the weights, if there are any."""
        if self.given and self.lam is not None:
            raise AdapterError("Both weights and --lambda are given.", "Give one of them.")
        return self.weights

    def needed_weights(self, what: str) -> list[float]:
        """Return the weights."""
        weights = self.checked_weights()
        if weights is None:
            raise AdapterError(
                f"No weights are given for {len(self.ingredients)} {what}.",
                f"Give one -w per {what.removesuffix('s')}, or --lambda, or --grid.",
            )
        return weights


def mix_whole_models(asked: Asked, settings: Mapping[str, Any]) -> None:
    """Mix models as asked, and print what was written."""
    from rsoup.mixing import checkpoints

    if asked.into is not None:
        raise AdapterError(
            "--into merges an adapter into a base, and these are whole models.", "Leave it out: the output is a model."
        )
    models = asked.ingredients
    if asked.check:
        even = asked.checked_weights() or [(1 - settings["base_weight"]) / len(models)] * len(models)
        mixture = checkpoints.mix_models(models, even, **{**settings, "allow_extrapolation": True})
        show_models(mixture, checkpoints.check_models(mixture), json=asked.json)
        return
    folder = asked.place()
    if asked.grid is not None:
        if asked.given or asked.lam is not None:
            raise AdapterError("--grid goes with no weights.", "Leave them out: the grid sets the weights.")
        grid = checkpoints.write_model_grid(models, asked.grid, folder, overwrite=asked.overwrite, **settings)
        warn(grid.warnings)
        points = [str(point) for point in grid.points]
        if asked.json:
            show_path(grid.folder, {"points": points, "warnings": grid.warnings}, json=True)
        for point in points if not asked.json else []:
            out.print(point, soft_wrap=True, markup=False)
        return
    mixture = checkpoints.mix_models(models, asked.needed_weights("models"), **settings)
    warn(mixture.warnings)
    path = checkpoints.write_model(mixture, folder, overwrite=asked.overwrite)
    show_path(path, {"warnings": mixture.warnings}, json=asked.json)


def extract_adapter(
    asked: Asked, method: str | None, settings: Mapping[str, Any], permissions: Mapping[str, bool]
) -> None:
    """Write a model's difference from its base as an adapter, and print how much of it that holds."""
    from rsoup.mixing import checkpoints

    _check_extract(asked, method, settings)
    _refuse_permissions(permissions)
    assert asked.base is not None
    options = settings["options"]
    found = checkpoints.extract(
        asked.ingredients[0],
        asked.base,
        asked.place(),
        rank=options.rank,
        energy=options.energy,
        seed=options.seed,
        dtype=settings["dtype"] or "F32",
        overwrite=asked.overwrite,
    )
    warn(found.warnings)
    if not asked.json:
        _say_extraction(found)
    facts = {key: value for key, value in asdict(found).items() if key != "folder"}
    show_path(found.folder, facts, json=asked.json)


def _check_extract(asked: Asked, method: str | None, settings: Mapping[str, Any]) -> None:
    """Raise AdapterError if --extract is given what does not go with it, or lacks what it needs."""
    if len(asked.ingredients) != 1:
        raise AdapterError(
            f"--extract takes one model, and there are {len(asked.ingredients)}.", "Extract them one by one, then mix."
        )
    if asked.base is None:
        raise AdapterError("--extract needs the model that this one was made from.", "Add --base BASE.")
    if settings["options"].rank is None:
        raise AdapterError("--extract needs the largest rank of the adapter.", "Add --rank 64, say.")
    wrong = {
        "--method": method is not None,
        "-w": asked.given,
        "--lambda": asked.lam is not None,
        "--grid": asked.grid is not None,
        "--into": asked.into is not None,
        "--check": asked.check,
        "--density": settings["options"].density is not None,
        "--base-weight": bool(settings["base_weight"]),
    }
    for option, given in wrong.items():
        if given:
            raise AdapterError(f"--extract takes no {option}.", "Leave it out; mix the adapter once it is written.")


def _refuse_permissions(permissions: Mapping[str, bool]) -> None:
    """Refuse what allows a mix to do something that an extraction does not do, or does anyway."""
    reasons = {
        "--allow-extrapolation": "it has no weights",
        "--allow-different-starts": "a model has no starting adapter",
        "--common-vocabulary": "embeddings stay out of the adapter, so their vocabularies need not agree",
    }
    for option, given in permissions.items():
        if given:
            raise AdapterError(f"--extract takes no {option}: {reasons[option]}.", "Leave it out.")


def _say_extraction(found: Extraction) -> None:
    """Tell how much of the difference the adapter holds, where least, and what it leaves out."""
    worst = min(found.layers, key=lambda module: found.layers[module])
    ranks = sorted(set(found.ranks.values()))
    shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    say(f"{len(found.layers)} layers at rank {shown} hold {found.captured:.1%} of their squared difference")
    say(f"least: {found.layers[worst]:.1%} at {worst}")
    for kind, own in found.left_out.items():
        what = f"{own.tensors} tensors" if own.tensors > 1 else "1 tensor"
        say(f"left out: {kind} ({what}), {own.share:.1%} of the whole squared difference")
    say(f"the adapter holds {found.of_all:.1%} of the whole squared difference")


def model_folder(name: str) -> str:
    """Return where a model lies: a bundled one in its folder, any other where its name says."""
    from rsoup.models.bundled import BUNDLED, bundled_folder

    return str(bundled_folder(name)) if name in BUNDLED else name


def show_path(path: Path, facts: Mapping[str, Any], *, json: bool) -> None:
    """Print the path of what was written, or with ``--json`` the path and what there is to say about it."""
    if json:
        typer.echo(jsonlib.dumps({"path": str(path), **facts}, indent=2))
    else:
        out.print(path, soft_wrap=True, markup=False)
