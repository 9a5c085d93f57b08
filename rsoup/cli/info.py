"""``rsoup rewards`` and ``rsoup recipes``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from rsoup.cli.completion import complete_recipe, complete_reward
from rsoup.cli.display import Bars, out, say, tell
from rsoup.cli.examples import epilog
from rsoup.errors import RecipeError

if TYPE_CHECKING:
    from rsoup.recipe.judge import JudgeSection
    from rsoup.rewards.classifier import Read
    from rsoup.rewards.tryout import Check, RewardCheck, Trial


OWN = (
    ("model:", "a sequence classifier (folder or hub id): logits for a post and a completion"),
    ("function:", "file.py:function or module:function"),
    ("judge:", "a language model that scores by a rubric: at an OpenAI-compatible endpoint, or loaded here"),
)
"""What a reward may be beside an entry of the registry."""


class _ShowUnlessCommand(TyperGroup):
    """Takes a word that is no command of the group for the name of a reward to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = not args or args[0] in self.commands
        return super().resolve_command(ctx, args if known else ["show", *args])


rewards = typer.Typer(
    cls=_ShowUnlessCommand,
    invoke_without_command=True,
    help="The registry of rewards; with a name: what it reads, what it returns, its score for a text.",
    subcommand_metavar="[NAME | check RECIPE]",
)


@rewards.callback()
def list_rewards(ctx: typer.Context) -> None:
    """List the registry if nothing else is asked."""
    if ctx.invoked_subcommand is not None:
        return
    from rsoup.rewards import REWARDS

    width = max(map(len, REWARDS)) + 2
    for name, entry in REWARDS.items():
        tell(f"{name:<{width}}{entry.returns}")
        tell(f"{'':<{width}}reads {entry.reads}", style="dim")
    out.print("\nOf your own, in a recipe or by name:")
    for heading, words in OWN:
        tell(f"{heading:<11}{words}")


@rewards.command("show", epilog=epilog("rewards show"))
def show_reward(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A registry entry, a classifier (folder or hub id), module:function; with --recipe one of its.",
            autocompletion=complete_reward,
        ),
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="The post that the completion answers.")] = (
        "The kettle boils fast, but the lid broke in a week and the handle gets hot."
    ),
    completion: Annotated[str, typer.Option("--completion", help="The text to score.")] = (
        "A quick kettle with a lid that breaks."
    ),
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="The reference answer of the post.", show_default=False),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME=VALUE", help="A column of the row, as JSON or text.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Take the reward as this recipe has it.",
            show_default=False,
            autocompletion=complete_recipe,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of a classifier: the label that counts, 0, a difference, 1-0, or another output, rewards.3.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Of a classifier: the text it reads; or chat, pair, text.", show_default=False),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Read as in this bundled task.", show_default=False),
    ] = None,
) -> None:
    """What a reward reads, what it returns, and its score for a text: rsoup rewards NAME."""
    from rsoup.errors import did_you_mean
    from rsoup.recipe_file import find_recipe, load_recipe, parse_reward_section
    from rsoup.rewards import REWARDS, complete_reward, parse_reward

    whole = None if recipe is None else load_recipe(find_recipe(recipe))
    if whole is not None:
        known = whole.rewards
        if name not in known:
            raise RecipeError(f"{recipe}: has no reward {name!r}.", did_you_mean(name, known))
        section = known[name]
    else:
        name, section = parse_reward(name)
    given = {"format": format_, "template": template}
    changed = {key: text for key, text in given.items() if text is not None}
    section = parse_reward_section({**section.model_dump(exclude_unset=True), **changed}, "the flags")
    section = complete_reward(name, section, task)
    from rsoup.rewards.samples import Sample
    from rsoup.rewards.tryout import talks_in, tokens_of, try_reward

    rows = [dict(_column(text, numbers=numbers) for text in columns or ()) for numbers in (False, True)]
    rows = rows[:1] if rows[0] == rows[1] else rows
    samples = [Sample(prompt, completion, (), reference, row) for row in rows]
    tokens = None if whole is None else tokens_of(whole)
    talks = None if whole is None or section.function is None else talks_in(whole)
    trial = try_reward(name, section, *samples, tokens=tokens, talks=talks)
    entry = REWARDS.get(section.use or name) if section.judge is None else None
    if entry is not None and section.model is None and section.function is None:
        tell(f"reads       {entry.reads}")
        tell(f"returns     {entry.returns}")
        for key in entry.settings:
            tell(f"{key.removeprefix('json_'):11} {getattr(section, key)}")
    if section.direction == "minimize":
        out.print("direction   minimize: lower is better", markup=False)
    if section.judge is not None:
        _show_judge(section.judge)
    if section.model is not None:
        tell(f"model       {section.model}")
        if section.template is not None:
            tell(f"template    {section.template}")
        tell(f"format      {section.format or '0'}")
    if trial.parameters:
        shape = " (as lists of messages)" if trial.sample.messages is not None else ""
        tell(f"reads       {', '.join(trial.parameters)}{shape}")
    if reference is not None:
        tell(f"reference   {reference}")
    for key, value in trial.sample.columns.items():
        tell(f"{key:11} {value!r}")
    _show_trial(trial, prompt, completion)


def _column(text: str, *, numbers: bool) -> tuple[str, Any]:
    """Read a column given as name=value, which is JSON or else text; a number is text unless ``numbers`` are read."""
    import json

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RecipeError(f"--column {text}: is not name=value.", "For example: --column solution=42")
    try:
        read = json.loads(value)
    except ValueError:
        return name, value
    return name, value if type(read) in (int, float) and not numbers else read


def _show_judge(judge: JudgeSection) -> None:
    """Print who judges, and by what."""
    where = "" if judge.base_url is None else f" at {judge.base_url}"
    tell(f"judge       {judge.model}{where}")
    tell(f"rubric      {judge.rubric.strip()}")
    wins = "1 if the completion beats the reference, 0 if it loses: mean of both orders"
    out.print(
        f"returns     {wins if judge.pairwise else '{} to {}'.format(*judge.scale)}", markup=False, soft_wrap=True
    )


def _show_trial(trial: Trial, prompt: str, completion: str) -> None:
    from rsoup.rewards.judges.judge import Judged

    tell(f"prompt      {prompt}")
    tell(f"completion  {completion}")
    if isinstance(trial.reading, Judged):
        for text, answer in zip(trial.reading.texts, trial.reading.answers, strict=True):
            tell(f"asked       {text}")
            tell(f"answered    {answer}")
    elif trial.reading is not None:
        _show_reading(trial.reading)
    for name, value in trial.told.items():
        tell(f"{name:11} {value}")
    out.print("score       none: it does not apply" if trial.score is None else f"score       {trial.score:.4f}")


def _show_reading(reading: Read) -> None:
    """Print what a classifier reads: the way, the text, tokens, segments, what was cut, and the logits."""
    tell(f"reads       {reading.way}")
    for heading, text in zip(("text", "and"), reading.texts, strict=False):
        tell(f"{heading:11} {text}")
    pairs = " ".join(f"{number}:{token}" for number, token in zip(reading.ids, reading.tokens, strict=True))
    tell(f"tokens      {pairs}")
    if reading.segments is not None:
        tell(f"segments    {' '.join(map(str, reading.segments))}")
    if reading.cut:
        tokens = "1 token" if reading.cut == 1 else f"{reading.cut} tokens"
        out.print(f"cut         {tokens} {reading.left_out}: it reads {reading.limit}", markup=False)
    logits = "  ".join(f"{label} {value:.4f}" for label, value in reading.logits.items())
    tell(f"logits      {logits}")


@rewards.command("check", epilog=epilog("rewards check"))
def check_recipe(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file, or the name of a bundled one.",
            autocompletion=complete_recipe,
        ),
    ],
    rows: Annotated[int, typer.Option("--rows", min=2, help="Held-out rows to score.")] = 64,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the recipe.", show_default=False),
    ] = None,
) -> None:
    """Before any training: does each reward prefer reference answers, and how do the rewards compare."""
    from rsoup.recipe_file import find_recipe, load_recipe

    resolved = load_recipe(find_recipe(recipe), settings or ())
    from rsoup.rewards.tryout import check_rewards, remarks

    with Bars() as progress:
        check = check_rewards(resolved, rows, progress)
    _show_check(check, resolved.minimized)
    for remark in remarks(check, list(resolved.rewards)):
        say(f"note: {remark}")


def _show_check(check: Check, minimized: frozenset[str]) -> None:
    """Print a row for each reward, and how their scores correlate; an arrow marks those of which lower is better."""
    if (first := check.first) is not None:
        tell(f"first prompt  {_shown(first.prompt)} ({len(first.tokens)} tokens)")
        tell(f"reference     {_shown(first.reference)}\n")
    answers = "reference answers" if check.references else "first sentences of posts"
    told = " (± one standard error)" if check.references else ""
    tell(f"{check.rows} {answers}, each under its own post and under another{told}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("reward")
    for heading in ("own preferred", "mean", "deviation", "least", "most", "texts/s"):
        table.add_column(heading, justify="right")
    for name, reward in check.rewards.items():
        table.add_row(f"{name} ↓" if name in minimized else name, *_cells(reward))
    out.print(table)
    out.print("\nrank correlation of scores")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in check.rewards:
        table.add_column(name, justify="right")
    for name, row in check.correlations.items():
        table.add_row(name, *("-" if math.isnan(value) else f"{value:.2f}" for value in row.values()))
    out.print(table)


def _shown(text: str | None, ends: int = 300) -> str:
    """Return a text as one line in which blanks can be told, without the middle of a long one."""
    if text is None:
        return "none"
    return repr(text if len(text) <= 2 * ends else f"{text[:ends]} [...] {text[-ends:]}")


def _cells(reward: RewardCheck) -> list[str]:
    preferred = "-" if reward.preferred is None else f"{reward.preferred[0]:.0%} ± {reward.preferred[1]:.0%}"
    numbers = (reward.mean, reward.deviation, reward.least, reward.most)
    cells = ("-" if math.isnan(number) else f"{number:.3f}" for number in numbers)
    return [preferred, *cells, _speed(reward.per_second)]


def _speed(per_second: float) -> str:
    """Return how many texts are scored in a second, or how long one takes that takes longer than that."""
    if math.isnan(per_second):
        return "-"
    return f"{per_second:.0f}" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Print this recipe, to copy and edit.", autocompletion=complete_recipe),
    ] = None,
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
        _list_recipes(bundled_recipes())


def _list_recipes(bundled: dict[str, Path]) -> None:
    """Print the recipes in groups, each with what it needs of a machine and how long it takes."""
    from rsoup.recipe_headers import GROUPS, grouped

    width = max(map(len, bundled)) + 2
    for group, headers in grouped(bundled.items()).items():
        out.print(f"{GROUPS[group]}", style="bold")
        for name, header in headers.items():
            tell(f"  {name:<{width}}{header.what}")
            tell(f"  {'':<{width}}{header.takes}; {header.hardware}", style="dim")
        out.print()
