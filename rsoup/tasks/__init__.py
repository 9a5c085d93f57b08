"""What the model is asked: a template and rows of text.

A bundled task is an entry of ``TASKS``; a recipe's own task gives the same keys. To add a task, write an entry, and,
if the rows are not plain columns, a function that reads one:

>>> from rsoup.recipe import TaskSection
>>> from rsoup.tasks.rows import Row, UnusableRow, one_line
>>> def read_ticket(row):
...     if row["language"] != "en":
...         raise UnusableRow("not in English")
...     return Row(row["number"], one_line(row["body"]), reference=row["title"])
>>> TASKS["tickets"] = BundledTask(
...     template="Give this ticket a title: {post}",
...     data_sets={"helpdesk": DataSet("someone/helpdesk-tickets", read=read_ticket)},
...     prefix=(1, 3),
... )
>>> task = resolve_task(TaskSection(name="tickets"))
>>> task.data, task.template
('someone/helpdesk-tickets', 'Give this ticket a title: {post}')
>>> task.read({"number": 7, "language": "en", "body": "My kettle\\nleaks.", "title": "Leak"})
Row(id=7, post='My kettle leaks.', reference='Leak')

Opening the data is in ``rsoup.tasks.sources``, prompts are made in ``rsoup.tasks.loading``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rsoup.errors import RecipeError, did_you_mean
from rsoup.recipe import ResponseRule, TaskSection
from rsoup.tasks.gym import SETTINGS, gym_source
from rsoup.tasks.rows import (
    REVIEW,
    RowReader,
    read_assistant,
    read_news,
    read_reddit,
    read_review,
    read_stack,
)

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Part:
    """Where a data set keeps a split: the names it may have (the first found counts), a folder, rows to read.

    ``config`` is the data set's configuration; ``told`` is the key by which the recipe names the split.
    """

    names: tuple[str, ...]
    folder: str | None = None
    limit: int | None = None
    config: str | None = None
    told: Literal["split", "eval_split"] | None = None


TRAIN, TEST = Part(("train",)), Part(("test", "validation"))


@dataclass(frozen=True)
class DataSet:
    """A data set of a task: a hub id or a path, where its splits are, and what reads a row (none: its columns).

    ``unique`` names what no two rows may share, beside the id.
    """

    source: str
    eval_source: str | None = None
    train: Part = TRAIN
    test: Part = TEST
    read: RowReader | None = None
    unique: tuple[str, ...] = ()


@dataclass(frozen=True)
class BundledTask:
    """An entry of ``TASKS``: how rows become prompts and what rewards read of the answers."""

    template: str
    data_sets: Mapping[str, DataSet]
    chat: bool | None = None
    max_prompt_tokens: int = 512
    prefix: tuple[int, int] | None = None
    response: ResponseRule = "whole"
    post: str | None = None


@dataclass(frozen=True)
class Task:
    """A task with every setting filled in; most keys are those of the recipe's ``task`` section.

    ``post``, if given, is that of every row; a row's column then holds the reference answer. Without a ``column``, rows
    are read by their shape (``rsoup.tasks.shapes``); without ``chat``, conversations go into the chat template.
    """

    name: str
    data: str
    eval_data: str | None = None
    eval_share: float = 0.2
    column: str | None = None
    reference: str | None = None
    id: str = "id"
    template: str = "{post}"
    system: str | None = None
    chat: bool | None = None
    chat_template_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    max_prompt_tokens: int = 512
    prefix: tuple[int, int] | None = None
    response: ResponseRule = "whole"
    post: str | None = None
    train: Part = TRAIN
    test: Part = TEST
    read: RowReader | None = None
    unique: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what decides prompts and what is read of completions, beside the rows."""
        keys = ("template", "max_prompt_tokens", "prefix", "response")
        added = {key: getattr(self, key) for key in ("system", "chat_template_kwargs")}
        given = {key: value for key, value in added.items() if value is not None}
        return {**{key: getattr(self, key) for key in keys}, "chat": bool(self.chat), **given}


INPUT_TEMPLATE = "### Instruction: {instruction} ### Input: {{post}} ### Response: "
PLAIN_TEMPLATE = "### Instruction: {post} ### Response: "
SUMMARIZE = "Generate a one-sentence summary of this post."
FEW_TOKENS = (2, 7)
"""How many tokens of the reference answer prompts end with, at least and at most, as in the paper's code."""

TASKS = {
    "reviews": BundledTask(
        template="<|im_start|>user\nSummarize this review in one sentence: {post}<|im_end|>\n<|im_start|>assistant\n",
        data_sets={
            "reviews": DataSet(str(DATA / "reviews" / "train.jsonl"), str(DATA / "reviews" / "test.jsonl")),
        },
    ),
    "summary": BundledTask(
        template=INPUT_TEMPLATE.format(instruction=SUMMARIZE),
        data_sets={
            "news": DataSet(  # the small split is called train: the paper's code swaps them
                "argilla/news-summary", train=Part(("test",)), test=Part(("train",)), read=read_news
            ),
            "reddit": DataSet("trl-lib/tldr", test=Part(("validation", "test")), read=read_reddit, unique=("post",)),
        },
        prefix=FEW_TOKENS,
        response="first_sentence",
    ),
    "stack": BundledTask(
        template=PLAIN_TEMPLATE,
        data_sets={
            "stack": DataSet(
                "lvwerra/stack-exchange-paired",
                train=Part(("train",), "data/rl", 40_000),
                test=Part(("test", "train"), "data/evaluation", 1_000),
                read=read_stack,
            ),
        },
        max_prompt_tokens=511,
        prefix=FEW_TOKENS,
    ),
    "review": BundledTask(
        template=PLAIN_TEMPLATE,
        data_sets={"imdb": DataSet("stanfordnlp/imdb", test=Part(("test",)), read=read_review)},
        prefix=FEW_TOKENS,
        post=REVIEW,
    ),
    "assistant": BundledTask(
        template=PLAIN_TEMPLATE,
        data_sets={
            "hh": DataSet(
                "Anthropic/hh-rlhf",
                train=Part(("train",), "helpful-base"),
                test=Part(("test",), "helpful-base"),
                read=read_assistant,
            ),
        },
        prefix=FEW_TOKENS,
    ),
}


def resolve_task(section: TaskSection) -> Task:
    """Fill a recipe's task section with the settings of the bundled task it names, if any, and the defaults."""
    elsewhere = {"dataset", "config", "split", "eval_config", "eval_split", "gym", "gym_config", "gym_size"}
    given = {key: value for key, value in section.model_dump(exclude=elsewhere).items() if value is not None}
    if "eval_share" not in section.model_fields_set:
        del given["eval_share"]
    if section.prefix is not None:
        given["prefix"] = tuple(section.prefix) if section.prefix else None
    if section.gym is not None:
        base = _gym_settings(section)
    elif section.name is not None:
        base = _bundled_settings(section)
    elif section.dataset is not None:
        raise RecipeError("task.dataset: is for a bundled task, and task.name is not given.", "Set task.name as well.")
    elif section.data is None:
        raise RecipeError("task: neither a name nor data is given.", "Set task.name or task.data.")
    else:
        base = {"name": Path(section.data).stem, "eval_data": section.data if _keeps_test_split(section.data) else None}
    if section.chat is None and (section.system or section.chat_template_kwargs):
        given["chat"] = True
    task = _with_parts(Task(**{**base, **given}), section)
    _check_chat_keys(section)
    if task.template.count("{post}") != 1:
        raise RecipeError("task.template: has to contain {post} exactly once.", 'For example: "Summarize: {post}"')
    return task


def _check_chat_keys(section: TaskSection) -> None:
    """Refuse what only a chat template takes, where there is to be none."""
    for key in ("system", "chat_template_kwargs"):
        if getattr(section, key) and section.chat is False:
            raise RecipeError(f"task.{key}: is for a chat template, and task.chat is off.", "Leave one of them out.")


def _with_parts(task: Task, section: TaskSection) -> Task:
    """Return the task with the configuration and the splits that the recipe names."""
    for key in ("split", "eval_split"):
        if (name := getattr(section, key)) and re.search(r"[\[\]+:%]", name):
            raise RecipeError(
                f"task.{key}: {name!r} is a slice, and splits are read as a whole.",
                "Name a split alone. task.eval_share and evaluation.prompts say how many rows are held out.",
            )
    if section.eval_split is not None and section.eval_split == section.split and section.eval_data is None:
        raise RecipeError(
            f"task.eval_split: {section.split!r} is the split that is trained on.",
            "Name another one, or leave it out: the last rows are then held out.",
        )
    eval_data = task.eval_data or (task.data if section.eval_split else None)
    test_config = section.eval_config or (section.config if eval_data in (None, task.data) else None)
    train = _named(task.train, section, "split", section.config)
    return replace(task, eval_data=eval_data, train=train, test=_named(task.test, section, "eval_split", test_config))


def _named(part: Part, section: TaskSection, key: Literal["split", "eval_split"], config: str | None) -> Part:
    part, name = replace(part, config=config or part.config), getattr(section, key)
    return part if name is None else replace(part, names=(name,), told=key)


def _gym_settings(section: TaskSection) -> dict[str, Any]:
    """Return the settings of a task of reasoning-gym."""
    for key in ("name", "dataset", "data", "eval_data"):
        if getattr(section, key) is not None:
            raise RecipeError(f"task.{key}: is given, and task.gym makes rows of its own.", "Leave one of them out.")
    if "size" in section.gym_config:
        raise RecipeError("task.gym_config: the size is not part of it.", "Set task.gym_size.")
    assert section.gym is not None
    data = gym_source(section.gym, section.gym_config, section.gym_size)
    return {"name": section.gym, "data": data, **SETTINGS}


def _bundled_settings(section: TaskSection) -> dict[str, Any]:
    """Return the settings of a bundled task, with rows of its data set unless the section gives other ones."""
    if section.name not in TASKS:
        raise RecipeError(f"task.name: there is no task {section.name!r}.", did_you_mean(str(section.name), TASKS))
    entry = TASKS[section.name]
    choice = section.dataset or next(iter(entry.data_sets))
    if choice not in entry.data_sets:
        raise RecipeError(
            f"task.dataset: the task {section.name} has no data set {choice!r}.",
            f"{did_you_mean(choice, entry.data_sets)} Other rows: task.data.",
        )
    data_set = entry.data_sets[choice]
    settings = {key: value for key, value in vars(entry).items() if key != "data_sets"}
    settings["name"] = section.name
    settings["data"], settings["eval_data"] = data_set.source, data_set.eval_source or data_set.source
    if section.data is not None:  # held-out rows of other data would not be held out of these
        settings["eval_data"] = section.data if data_set.read and _has_splits(section.data) else None
    if section.column is None:
        settings |= {key: getattr(data_set, key) for key in ("train", "test", "read", "unique")}
    return settings


def _has_splits(source: str) -> bool:
    """Tell whether a copy of a data set has its splits: a folder of one split or a file has not."""
    path = Path(source).expanduser()
    return not path.is_file() and not (path / "state.json").is_file()


def _keeps_test_split(source: str) -> bool:
    """Tell whether a folder was saved by datasets with a split of held-out rows."""
    listing = Path(source).expanduser() / "dataset_dict.json"
    try:
        splits = json.loads(listing.read_text(encoding="utf-8"))["splits"] if listing.is_file() else []
    except (OSError, ValueError, KeyError, TypeError):
        return False  # reading its rows says what is wrong
    return any(name in splits for name in TEST.names)
