"""Small stand-ins for a recipe's models and data, so that it can be tried in a minute before a GPU is paid for.

``shrink`` is the way in; the models are built in ``rsoup.tiny.models``, the rows in ``rsoup.tiny.rows``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsoup.recipe import FrontSection, Recipe, RewardSection, TaskSection
from rsoup.recipe.judge import JudgeSection
from rsoup.tasks import resolve_task
from rsoup.tiny.models import build_adapter, build_judge, build_policy
from rsoup.tiny.rows import write_rows

STEPS, PROMPTS, GROUP, TOKENS, RANK, SEEDS, DOCUMENTS = 2, 8, 2, 6, 4, 2, 4
LEARNING_RATE = 1e-2
"""Large enough for the experts of two steps to differ."""


def shrink(recipe: Recipe, output: Path | None = None) -> Recipe:
    """Return the recipe with random small models of the same architectures, made-up rows and few, short steps.

    The stand-ins are kept in the folder ``tiny`` of the run, which is ``output`` or runs/<name>-tiny. Data and
    functions that are on this machine stay as they are.
    """
    name = f"{recipe.name}-tiny"
    small = recipe.model_copy(update={"name": name, "output": str(output) if output else None})
    folder = small.folder / "tiny"
    policy = build_policy(folder / "policy", recipe.model.base, recipe.task, recipe.seed)
    models = {
        name: policy if source == recipe.model.base else _model(folder / "models" / name, source, recipe, index)
        for index, (name, source) in enumerate(recipe.models.items(), 1)
    }
    lora = recipe.model.lora
    start = build_adapter(folder / "start", policy, lora, recipe.seed) if recipe.model.start else None
    model = recipe.model.model_copy(
        update={
            "base": str(policy),
            "revision": None,
            "quantization": None,
            "dtype": "float32",
            "start": str(start) if start else None,
            "lora": lora if start else lora.model_copy(update={"r": min(lora.r, RANK)}),
        }
    )
    rewards = {
        name: _small_reward(folder / "rewards" / name, section, policy) for name, section in recipe.rewards.items()
    }
    own = {name: str(path) for name, path in models.items()}
    changed = {"model": model, "models": own, "task": _small_task(recipe.task, folder / "rows"), "rewards": rewards}
    return small.model_copy(update={**changed, **_short(recipe), "seeds": recipe.seeds[:SEEDS]})


def stand_ins(recipe: Recipe, small: Recipe) -> list[str]:
    """Return what is to be said of a recipe that was shrunk: what its numbers come from."""
    task = resolve_task(recipe.task)
    if recipe.task.gym is not None:
        rows = f"on rows of {recipe.task.gym}"
    elif small.task.data == recipe.task.data and small.task.eval_data == recipe.task.eval_data:
        rows = f"on the rows of {recipe.task.data or f'the task {task.name}'}"
    else:
        absent = next(source for source in (task.data, task.eval_data) if not _is_here(source))
        rows = f"on made-up rows, as {absent} is not on this machine"
    said = [f"Random small models stand in, {rows}: the numbers mean nothing."]
    asked = {name: own.judge for name, own in recipe.rewards.items() if own.judge is not None and own.judge.base_url}
    if asked:
        who = ", ".join(f"{name} ({judge.model})" for name, judge in asked.items())
        said.append(f"No endpoint is asked: a random small model judges in the place of that of {who}.")
    return said


def _small_reward(folder: Path, section: RewardSection, policy: Path) -> RewardSection:
    """Return a reward with a small classifier in the place of its own; what was to be judged, the policy judges."""
    if section.judge is not None:
        judge = JudgeSection(rubric=section.judge.rubric, model=str(policy), pairwise=section.judge.pairwise)
        return section.model_copy(update={"judge": judge, "revision": None})
    if section.model is not None:
        return section.model_copy(update={"model": str(build_judge(folder, section)), "revision": None})
    return section


def _model(folder: Path, source: str, recipe: Recipe, index: int) -> Path:
    """Make a stand-in for one of the models that are mixed, with random numbers of its own."""
    return build_policy(folder, source, recipe.task, recipe.seed + index)


def _small_task(section: TaskSection, folder: Path) -> TaskSection:
    """Return the task with made-up rows in the shape of its data, unless these are on this machine."""
    if section.gym is not None:
        return section.model_copy(update={"gym_size": min(section.gym_size, 4 * PROMPTS), "eval_share": 0.5})
    task = resolve_task(section)
    if all(map(_is_here, (task.data, task.eval_data))):
        return section
    train, test = write_rows(folder, task)
    parts = dict.fromkeys(("config", "split", "eval_config", "eval_split"))
    return section.model_copy(update={"data": str(train), "eval_data": str(test), **parts})


def _is_here(source: str | None) -> bool:
    return source is None or Path(source).expanduser().exists()


def _short(recipe: Recipe) -> dict[str, Any]:
    """Return the sections that say how long everything takes."""
    training, generation, evaluation = recipe.training, recipe.generation, recipe.evaluation
    few: dict[str, Any] = {
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "epochs": None,
        "prompts_per_step": PROMPTS,
        "checkpoint_every": 1,
    }
    few["completions_per_prompt"] = min(training.completions_per_prompt, GROUP)
    few["prompts_per_pass"] = training.prompts_per_pass and 2
    few["save_every"] = training.save_every and 1
    few["ppo"] = training.ppo.model_copy(update={"mini_batches": 2 if training.ppo.mini_batches > 1 else 1})
    shortest = generation.min_new_tokens and min(generation.min_new_tokens, TOKENS // 2)
    measured = {
        "random": min(evaluation.random, 3),
        "refine": min(evaluation.refine, 1),
        "samples": min(evaluation.samples, 2),
        "fronts": {name: _small_front(front) for name, front in evaluation.fronts.items()},
    }
    few_documents = evaluation.lm_eval.model_copy(update={"limit": DOCUMENTS})
    return {
        "training": training.model_copy(update=few),
        "generation": generation.model_copy(update={"max_new_tokens": TOKENS, "min_new_tokens": shortest}),
        "evaluation": evaluation.model_copy(
            update={"prompts": PROMPTS, "lambdas": 3, "max_new_tokens": TOKENS, "batch_size": PROMPTS, **measured}
            | {"lm_eval": few_documents}
        ),
    }


def _small_front(front: FrontSection) -> FrontSection:
    """Return a front of few points, as early in the few steps as it can be."""
    few = {name: 3 for name in ("lambdas", "preferences") if getattr(front, name)}
    return front.model_copy(update={**few, "extrapolate": min(front.extrapolate, 0.5), "after": front.after and 1})
