"""``rsoup mix``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsoup.cli.completion import complete_adapter, complete_base, complete_method, offering
from rsoup.cli.display import out, say, warn
from rsoup.cli.mixing_check import check_adapters
from rsoup.cli.mixing_models import Asked, extract_adapter, mix_whole_models, model_folder, show_path
from rsoup.errors import AdapterError

if TYPE_CHECKING:
    from rsoup.mixing import Grid


def mix(
    ingredients: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Folders or hub ids of adapters, or of whole models.",
            autocompletion=complete_adapter,
        ),
    ],
    weights: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", help="One per ingredient, in their order; they sum to 1.", show_default=False),
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option("--lambda", help="For two: weights 1 - lambda and lambda.", show_default=False),
    ] = None,
    grid: Annotated[
        int | None, typer.Option("--grid", metavar="K", help="Write every multiple of 1/K.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether and how they would mix.", show_default=False)
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.", show_default=False)
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="BASE",
            help="Write the base model with the mix merged in.",
            show_default=False,
            autocompletion=complete_base,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="BASE",
            help="Models: what all were made from.",
            show_default=False,
            autocompletion=complete_base,
        ),
    ] = None,
    extract: Annotated[
        bool,
        typer.Option("--extract", help="Write the model's difference from --base as an adapter.", show_default=False),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Adapters: factors (default), cat, svd, slerp, ties, dare. Models: linear (default), slerp, "
            "task_arithmetic, ties, dare.",
            show_default=False,
            autocompletion=complete_method,
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Cut to this rank.", show_default=False)] = None,
    energy: Annotated[
        float | None,
        typer.Option("--energy", help="Cut to the rank that keeps this share.", show_default=False),
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="ties, dare: share of entries kept (0.5).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="dare: which entries are dropped.")] = 0,
    base_weight: Annotated[float, typer.Option("--base-weight", help="Weight on the base itself.")] = 0.0,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", help="F32, F16 or BF16.", show_default=False, autocompletion=offering("F32", "F16", "BF16")
        ),
    ] = None,
    allow_extrapolation: Annotated[
        bool, typer.Option("--allow-extrapolation", help="Take weights outside the simplex.", show_default=False)
    ] = False,
    allow_different_starts: Annotated[
        bool,
        typer.Option("--allow-different-starts", help="Mix adapters that began elsewhere.", show_default=False),
    ] = False,
    common_vocabulary: Annotated[
        bool,
        typer.Option(
            "--common-vocabulary", help="Models: of a resized vocabulary, mix what all have.", show_default=False
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an adapter or model at -o.", show_default=False)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.", show_default=False)] = False,
) -> None:
    """Adapters in, one adapter out (or a merged model, or a grid); or models in, one model out. No torch, no GPU."""
    from rsoup import mixing
    from rsoup.mixing import checkpoints

    _refuse_numbers(ingredients, weights or [], lam)
    ingredients = [model_folder(name) for name in ingredients]
    options = mixing.Options(rank=rank, energy=energy, density=density, seed=seed)
    asked = Asked(
        ingredients=ingredients,
        weights=weights or _line(lam, len(ingredients)),
        given=bool(weights),
        lam=lam,
        grid=grid,
        output=output,
        into=into,
        base=model_folder(base) if base is not None else None,
        check=check,
        overwrite=overwrite,
        json=json,
    )
    settings: dict[str, Any] = {
        "options": options,
        "base_weight": base_weight,
        "allow_extrapolation": allow_extrapolation,
        "dtype": dtype,
    }
    if extract:
        permissions = {
            "--allow-extrapolation": allow_extrapolation,
            "--allow-different-starts": allow_different_starts,
            "--common-vocabulary": common_vocabulary,
        }
        extract_adapter(asked, method=method, settings=settings, permissions=permissions)
    elif checkpoints.are_models(ingredients):
        if allow_different_starts:
            raise AdapterError("--allow-different-starts speaks of adapters.", "Leave it out: models need no start.")
        own = {**settings, "base": asked.base, "common_vocabulary": common_vocabulary}
        usual = "task_arithmetic" if check and base is not None else "linear"
        mix_whole_models(asked, {**own, "method": method or usual})
    else:
        if base is not None or common_vocabulary:
            raise AdapterError(
                f"--{'base' if base is not None else 'common-vocabulary'} speaks of whole models, and these are "
                "adapters.",
                "Leave it out; --into BASE merges the mix into a base.",
            )
        own = {**settings, "allow_different_starts": allow_different_starts}
        if check:
            check_adapters(asked, own, method)
        else:
            _mix_adapters(asked, {**own, "method": method or "factors"})


def _mix_adapters(asked: Asked, settings: dict[str, Any]) -> None:
    from rsoup import mixing

    output = asked.place()
    if asked.grid is not None:
        if asked.given or asked.lam is not None or asked.into is not None:
            raise AdapterError(
                "--grid goes with neither weights nor --into.", "Leave them out: the grid sets the weights."
            )
        grid = mixing.write_grid(asked.ingredients, asked.grid, output, overwrite=asked.overwrite, **settings)
        _show_grid(grid, json=asked.json)
        return
    soup = mixing.mix(asked.ingredients, asked.needed_weights("adapters"), **settings)
    warn(soup.warnings)
    _say_discarded(soup.discarded)
    if asked.into is None:
        path = mixing.write(soup, output, overwrite=asked.overwrite)
        show_path(path, {"warnings": soup.warnings, "discarded": dict(soup.discarded)}, json=asked.json)
        return
    merged = mixing.merge(soup, model_folder(asked.into), output, overwrite=asked.overwrite)
    warn(merged.warnings)
    where = f" at {merged.rounding_at}" if merged.rounding_at else ""
    say(f"{merged.changed} tensors changed, {merged.copied} copied")
    say(f"largest rounding error {merged.rounding:.2e}{where}; {merged.lost:.2%} of the update (norm) rounded away")
    facts = {key: value for key, value in dataclasses.asdict(merged).items() if key not in ("folder", "warnings")}
    warnings = [*soup.warnings, *merged.warnings]
    show_path(merged.folder, {"warnings": warnings, "discarded": dict(soup.discarded), **facts}, json=asked.json)


def _show_grid(grid: Grid, *, json: bool) -> None:
    warn(grid.warnings)
    _say_discarded(grid.discarded)
    if json:
        points = [str(point) for point in grid.points]
        show_path(
            grid.folder, {"points": points, "warnings": grid.warnings, "discarded": dict(grid.discarded)}, json=True
        )
        return
    for point in grid.points:
        out.print(point, soft_wrap=True, markup=False)


def _say_discarded(discarded: Mapping[str, float]) -> None:
    if discarded:
        module, share = max(discarded.items(), key=lambda item: item[1])
        say(f"cut to a rank: at most {share:.2%} of an update's energy is discarded, at {module}")


def _refuse_numbers(ingredients: list[str], weights: list[float], lam: float | None) -> None:
    """Raise AdapterError if an ingredient is a number and no folder: a weight without its ``-w``."""
    stray = [name for name in ingredients if _is_number(name) and not Path(name).exists()]
    if not stray:
        return
    if lam is not None:
        hint = f"Leave {' '.join(stray)} out: the first one's weight is {1 - lam:g}."
    else:
        hint = f"Write -w before each weight: {' '.join(f'-w {one}' for one in [*(f'{w:g}' for w in weights), *stray])}"
    raise AdapterError(f"{stray[0]}: is a number, and no folder of that name is here.", hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(lam: float | None, count: int) -> list[float] | None:
    """Return the weights of ``--lambda``; one ingredient alone has the weight 1."""
    from rsoup.mixing import line_weights

    if lam is None:
        return [1.0] if count == 1 else None
    if count != 2:
        raise AdapterError(f"--lambda is for two ingredients; there are {count}.", "Give one -w for each.")
    return list(line_weights(lam))
