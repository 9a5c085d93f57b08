"""``rsoup rewards`` and ``rsoup recipes``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from rsoup.cli.display import out


def rewards(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A registry entry, a classifier (folder or hub id), or module:function."),
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="The post that the completion answers.")] = (
        "The kettle boils fast, but the lid broke in a week and the handle gets hot."
    ),
    completion: Annotated[str, typer.Option("--completion", help="The text to score.")] = (
        "A quick kettle with a lid that breaks."
    ),
) -> None:
    """The registry; with a name: what the reward reads, what it returns, and its score for a text."""
    from rsoup.rewards import REWARDS, parse_reward

    if name is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("reward", "reads", "returns"):
            table.add_column(heading)
        for entry_name, entry in REWARDS.items():
            table.add_row(entry_name, entry.reads, entry.returns)
        out.print(table)
        return
    reward_name, section = parse_reward(name)
    from rsoup.rewards.scoring import make_scorer, score

    if reward_name in REWARDS and name == reward_name:
        out.print(f"reads       {REWARDS[name].reads}")
        out.print(f"returns     {REWARDS[name].returns}")
    value = score(reward_name, make_scorer(reward_name, section), [prompt], [completion])[0]
    out.print(f"prompt      {prompt}", markup=False)
    out.print(f"completion  {completion}", markup=False)
    out.print(f"score       {value:.4f}")


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe, to copy and edit.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.", show_default=False)
    ] = False,
) -> None:
    """The bundled recipes; with a name: print it."""
    from rsoup.recipe import Recipe
    from rsoup.recipe_file import bundled_recipes, find_recipe

    if schema:
        import json

        typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))
    elif name is not None:
        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
    else:
        for recipe_name, path in bundled_recipes().items():
            first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            out.print(f"[bold]{recipe_name}[/]  {first}", soft_wrap=True)
