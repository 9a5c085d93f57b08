"""Write a recipe as a person would: short, with a remark where a value is a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rsoup.starting.looking import Look
from rsoup.starting.rewarding import JUDGE
from rsoup.starting.sizes import SIZES

TASK_KEYS = ("name", "data", "split", "column", "reference")


@dataclass(frozen=True)
class Answers:
    """What a recipe is written from; ``chat``: wrap texts in the chat template, None where rows say it themselves."""

    name: str
    base: str
    rewards: Mapping[str, Mapping[str, Any]]
    size: str
    seen: Look
    chat: bool | None = None
    output: str | None = None


def compose(answers: Answers, path: str) -> str:
    """Return the text of a recipe; ``path`` is what its commands call it."""
    parts = (
        _head(answers, path),
        _model(answers),
        _task(answers),
        _rewards(answers),
        _training(answers),
        _rest(answers),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(answers: Answers, path: str) -> list[str]:
    commands = {
        "first": (f"rsoup run {path} --tiny", "random small models: does all fit together"),
        "check": (f"rsoup rewards check {path}", "the rewards on reference answers, before any training"),
        "run": (f"rsoup run {path}", ""),
        "keys": ("rsoup recipes --schema", "every key"),
    }
    width = max(len(command) for command, _ in commands.values())
    lines = [
        f"# {when:<6} {command:<{width}}  {f'({what})' if what else ''}" for when, (command, what) in commands.items()
    ]
    output = [f"output: {_value(answers.output)}"] if answers.output else []
    title = f"# {answers.name}: {' against '.join(answers.rewards)}, on {answers.seen.source}."
    return [title, "#", *(line.rstrip() for line in lines), "", f"name: {_value(answers.name)}", "seed: 0", *output]


def _model(answers: Answers) -> list[str]:
    rank = SIZES[answers.size].rank
    return ["model:", f"  base: {_value(answers.base)}", f"  lora: {{r: {rank}, alpha: {2 * rank}}}"]


def _task(answers: Answers) -> list[str]:
    seen = answers.seen
    given = seen.task.model_dump(include=set(TASK_KEYS), exclude_none=True)
    lines = ["task:", *(f"  {key}: {_value(given[key])}" for key in TASK_KEYS if key in given)]
    lines += [f"  # {line}" for line in seen.lines]
    if seen.task.name is not None:
        return lines
    if answers.chat:
        lines.append("  chat: true  # each text is the user's turn of the model's chat template")
    elif not seen.talks:
        lines.append("  # chat: true would wrap each text in a chat template, which this model does not have")
    if not seen.talks:
        lines.append(
            '  # template: "Summarize in one sentence: {post}"  # what is asked about a text; without: the text'
        )
    return lines


def _rewards(answers: Answers) -> list[str]:
    lines = ["rewards:  # an expert is trained for each; rsoup rewards lists more"]
    for name, section in answers.rewards.items():
        if JUDGE in section:
            lines += _judge(name, section[JUDGE]["rubric"], answers.base)
            continue
        inside = ", ".join(f"{key}: {_value(value)}" for key, value in section.items())
        lines.append(f"  {_value(name)}: {{{inside}}}")
    return lines


def _judge(name: str, rubric: str, base: str) -> list[str]:
    """Return a judge that works as it is: the base model itself; beside it, what one at an endpoint needs."""
    return [
        f"  {_value(name)}:",
        "    judge:",
        f"      rubric: {_value(rubric)}  # what is judged, in plain words",
        f"      model: {_value(base)}  # loaded here; a larger one judges better",
        "      # model: gpt-5-mini                     # or one at an endpoint, whose key is in OPENAI_API_KEY",
        "      # base_url: https://api.openai.com/v1",
        "      # max_calls: 20000",
    ]


def _training(answers: Answers) -> list[str]:
    size = SIZES[answers.size]
    prompts = min(size.prompts_per_step, answers.seen.training)
    return [
        "training:",
        f"  steps: {size.steps}",
        f"  prompts_per_step: {prompts}",
        f"  completions_per_prompt: {size.completions_per_prompt}",
        f"  learning_rate: {size.learning_rate}",
        "  score_scaling: running  # rewards of different scales count alike",
        *(["  prompts_per_pass: 4  # lower it if memory runs out: the gradients stay the same"] if prompts > 4 else []),
        "  ppo: {epochs: 2, kl_coef: 0.05}  # a larger kl_coef stays nearer to the base",
        "",
        "generation:",
        f"  max_new_tokens: {size.new_tokens}  # longer answers take longer",
    ]


def _rest(answers: Answers) -> list[str]:
    size, equal = SIZES[answers.size], round(1 / len(answers.rewards), 4)
    weights = ", ".join(f"{_value(name)}: {equal}" for name in answers.rewards)
    lambdas = size.lambdas if len(answers.rewards) == 2 else min(size.lambdas, 5)
    return [
        "morl:  # the baseline: one training on the weighted sum of rewards",
        f"  - {{{weights}}}",
        "",
        "evaluation:",
        f"  prompts: {min(size.prompts, answers.seen.held_out)}  # held-out rows",
        f"  lambdas: {lambdas}  # points between two experts",
    ]


def _value(value: Any) -> str:
    """Return a value as YAML writes it within a line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
