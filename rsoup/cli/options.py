"""Options that several commands share, and the recipe they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsoup.cli.completion import complete_base, complete_recipe, complete_reward, complete_task
from rsoup.cli.display import say
from rsoup.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from rsoup.recipe import Recipe, RewardSection

RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE]",
        help="A recipe file, or the name of a bundled one.",
        show_default=False,
        autocompletion=complete_recipe,
    ),
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
    typer.Option(
        "--model", help="Base model: bundled name, folder or hub id.", show_default=False, autocompletion=complete_base
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="A bundled task: reviews, summary, stack, review or assistant.",
        show_default=False,
        autocompletion=complete_task,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="A data set of the task; of summary: news or reddit.", show_default=False),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Rows: JSON(L), CSV, TSV, Parquet, a saved data set, a hub id.", show_default=False),
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="NAME", help="Configuration of the data set, if several.", show_default=False),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="Split of the data set, if not the usual one.", show_default=False),
]
ReferenceOption = Annotated[
    str | None, typer.Option("--reference", help="Column that holds a reference answer.", show_default=False)
]
SystemOption = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System message of every prompt.", show_default=False)
]
ColumnOption = Annotated[
    str | None,
    typer.Option("--column", help="Column that holds the post. Default: by the rows' shape.", show_default=False),
]
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
        autocompletion=complete_reward,
    ),
]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="LABELS",
        help="Of a classifier, one per --reward: the label that counts, 0, or a difference, 1-0.",
        show_default=False,
    ),
]


def make_recipe(
    name: str | None,
    settings: Sequence[str] | None,
    flags: Mapping[str, Any],
    rewards: Sequence[str] = (),
    formats: Sequence[str] = (),
    *,
    weigh: bool = False,
) -> tuple[Recipe, dict[str, float]]:
    """Return the recipe that a file, settings, flags and rewards make, and the names of these rewards in it.

    Each comes with the weight that its format carries, else 1; ``weigh`` makes them the weights of the one baseline.
    Without a file, a task of the paper takes the settings of its bundled recipe.
    """
    from rsoup.recipe_file import find_recipe, parse_recipe, recipe_content, source_name, sources
    from rsoup.tasks import TASKS

    given = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items()}
    path = find_recipe(name) if name is not None else None
    if (task := given.get("task.name")) is not None and task not in TASKS:
        raise RecipeError(f"--task: there is no task {task!r}.", did_you_mean(task, TASKS))
    papers = _recipe_of_task(given) if path is None else None
    content = recipe_content(papers or path, (), {})
    if papers is not None:
        _make_room(content, given, rewards)
        say(f"No recipe is given: taking the settings of {papers.stem} (rsoup recipes {papers.stem}).")
    content = recipe_content(None, settings or (), given, content)
    names = _add_rewards(content, rewards, formats)
    if weigh and names and given.get("morl") is None:
        content["morl"] = [names]
    return parse_recipe(content, source_name(path), sources(settings or (), given)), names


def _recipe_of_task(flags: Mapping[str, Any]) -> Path | None:
    """Return the bundled recipe with the paper's settings for the task that the flags name, if there is one."""
    from rsoup.recipe_file import bundled_recipes
    from rsoup.tasks import TASKS

    task = flags.get("task.name")
    if task not in TASKS:
        return None
    data_set = flags.get("task.dataset") or next(iter(TASKS[task].data_sets))
    bundled = bundled_recipes()
    return bundled.get(f"paper-{task}-{data_set}", bundled.get(f"paper-{task}"))


def _make_room(content: dict[str, Any], flags: Mapping[str, Any], rewards: Sequence[str]) -> None:
    """Take out of a bundled recipe what the flags replace as a whole: its model, its rewards."""
    if flags.get("model.base") is not None:
        content["model"] = {}
    if rewards:
        content["rewards"], content["morl"] = {}, []


def _add_rewards(content: dict[str, Any], rewards: Sequence[str], formats: Sequence[str]) -> dict[str, float]:
    """Add rewards of the command line to a recipe's content, and return their names with their weights."""
    from rsoup.rewards import parse_reward, split_weight

    if formats and len(formats) != len(rewards):
        raise RecipeError(
            f"{len(formats)} formats are given for {len(rewards)} rewards.",
            "Give a --format for each --reward, or none.",
        )
    weights: dict[str, float] = {}
    for position, reward in enumerate(rewards):
        known = content.get("rewards") or {}
        if isinstance(known, list):
            known = dict.fromkeys(known)
        if not isinstance(known, dict):
            break  # and be refused below
        name, section = (reward, known[reward]) if reward in known else _parsed(*parse_reward(reward, known), known)
        if name in weights or (reward not in known and known.get(name, section) != section):
            raise RecipeError(
                f"--reward {reward}: there is another reward called {name}.", "Give both a name in a recipe."
            )
        text, weights[name] = split_weight(formats[position]) if formats else ("", 1.0)
        content["rewards"] = {**known, name: {**(section or {}), "format": text} if text else section}
    return weights


def _parsed(name: str, section: RewardSection, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a reward and its settings, those among which ``--set`` gave without saying what the reward is."""
    from rsoup.rewards import REWARDS

    settings, given = section.model_dump(exclude_unset=True), known.get(name)
    if isinstance(given, dict) and name not in REWARDS and not {"use", "model", "function"} & given.keys():
        known[name] = settings = {**given, **settings}
    return name, settings
