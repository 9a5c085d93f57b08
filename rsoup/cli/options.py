"""Options that several commands share, and the recipe they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rsoup.recipe import Recipe

RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RECIPE]", help="A recipe file, or the name of a bundled one.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the recipe.", show_default=False),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder of the run (default runs/NAME).", show_default=False),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Everything random follows from it.", show_default=False)
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Base model: bundled name, folder or hub id.", show_default=False),
]
TaskOption = Annotated[str | None, typer.Option("--task", help="A bundled task: reviews.", show_default=False)]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Rows: JSONL, CSV, Parquet, a saved data set, a hub id.", show_default=False),
]
ColumnOption = Annotated[str | None, typer.Option("--column", help="Column that holds the post.", show_default=False)]
TemplateOption = Annotated[
    str | None, typer.Option("--template", help="The prompt, with {post} in it.", show_default=False)
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace results made from other settings.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.", show_default=False)]
RewardsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        "-r",
        metavar="REWARD",
        help="A reward of the recipe or the registry, a classifier (folder or hub id), or module:function.",
        show_default=False,
    ),
]


def make_recipe(
    name: str | None, settings: Sequence[str] | None, flags: Mapping[str, Any], rewards: Sequence[str] = ()
) -> tuple[Recipe, list[str]]:
    """Return the recipe that a file, settings, flags and rewards make, and the names of these rewards in it."""
    from rsoup.recipe_file import find_recipe, parse_recipe, recipe_content, source_name
    from rsoup.rewards import parse_reward

    path = find_recipe(name) if name is not None else None
    given = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items()}
    content = recipe_content(path, settings or (), given)
    names = []
    for reward in rewards:
        known = content.get("rewards") or {}
        if not isinstance(known, (list, dict)):
            break  # and be refused below
        if reward in known:
            names.append(reward)
            continue
        reward_name, section = parse_reward(reward)
        names.append(reward_name)
        more = {reward_name: section.model_dump(exclude_unset=True)}
        content["rewards"] = {**(known if isinstance(known, dict) else dict.fromkeys(known)), **more}
    return parse_recipe(content, source_name(path)), names
