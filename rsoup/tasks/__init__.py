"""What the model is asked: a template and rows of text.

A bundled task is an entry of ``TASKS``; a recipe's own task gives the same keys. Reading the rows is in
``rsoup.tasks.loading``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.errors import RecipeError, did_you_mean
from rsoup.recipe import TaskSection

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Task:
    """A task with every setting filled in; the keys are those of the recipe's ``task`` section."""

    name: str
    data: str
    eval_data: str | None = None
    eval_share: float = 0.2
    column: str = "post"
    template: str = "{post}"
    chat: bool = False
    max_prompt_tokens: int = 512


TASKS = {
    "reviews": Task(
        name="reviews",
        data=str(DATA / "reviews" / "train.jsonl"),
        eval_data=str(DATA / "reviews" / "test.jsonl"),
        template=("<|im_start|>user\nSummarize this review in one sentence: {post}<|im_end|>\n<|im_start|>assistant\n"),
    ),
}


def resolve_task(section: TaskSection) -> Task:
    """Fill a recipe's task section with the settings of the bundled task it names, if any, and the defaults."""
    given = {key: value for key, value in section.model_dump().items() if value is not None}
    if "eval_share" not in section.model_fields_set:
        del given["eval_share"]
    if section.name is not None and section.name in TASKS:
        base: dict[str, Any] = vars(TASKS[section.name])
        if section.data is not None:  # held-out rows of other data would not be held out of these
            base = {**base, "eval_data": None}
    elif section.name is not None:
        raise RecipeError(f"task.name: there is no task {section.name!r}.", did_you_mean(section.name, TASKS))
    elif section.data is None:
        raise RecipeError("task: neither a name nor data is given.", "Set task.name or task.data.")
    else:
        base = {"name": Path(section.data).stem}
    task = Task(**{**base, **given})
    if task.template.count("{post}") != 1:
        raise RecipeError("task.template: has to contain {post} exactly once.", 'For example: "Summarize: {post}"')
    return task
