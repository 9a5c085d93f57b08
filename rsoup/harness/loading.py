"""Load the tasks of a recipe, and refuse whatever could not be measured before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.group import Group
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.models.utils import normalize_gen_kwargs

from rsoup.errors import MissingPackageError, ModelError, RecipeError, ResultsError, RsoupError, first_line, see
from rsoup.harness.finding import WHERE, Found, find, placed
from rsoup.harness.identity import identity_of
from rsoup.harness.metrics import Task, read_tasks
from rsoup.harness.quiet import quiet
from rsoup.harness.rehearsal import Rehearsal
from rsoup.harness.running import answered
from rsoup.hub import hub_trouble
from rsoup.recipe import Direction, LmEvalSection

MOST_NEW = 256
"""Tokens that lm-eval generates where a task does not say how many."""


@dataclass(frozen=True)
class Benchmark:
    """A task, or a group of tasks with a metric of its own, ready to be measured.

    ``ways`` has every metric by its label, the benchmark's own first; ``documents`` counts those that are asked.
    ``tasks`` and ``groups`` are lm-eval's own.
    """

    name: str
    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]
    ways: Mapping[str, Direction | None]
    documents: Mapping[str, int]
    sha256: str
    version: str

    @property
    def main(self) -> str:
        """The label of the metric that the benchmark counts by: its first."""
        return next(iter(self.ways))

    @property
    def count(self) -> int:
        """The number of documents."""
        return sum(self.documents.values())

    @property
    def num_fewshot(self) -> int | None:
        """The examples before each question, if that is one number for all tasks."""
        found = {int(task.get_config("num_fewshot") or 0) for task in self.tasks.values()}
        return found.pop() if len(found) == 1 else None


def load_benchmarks(
    entries: Sequence[str], settings: LmEvalSection, tokenizer: Any, context: int | None
) -> tuple[Benchmark, ...]:
    """Return the benchmarks of a list for a base with so many tokens; RsoupError for one that cannot be measured."""
    chat = getattr(tokenizer, "chat_template", None)
    if settings.apply_chat_template and chat is None:
        raise RecipeError(
            "evaluation.lm_eval.apply_chat_template: the base's tokenizer has no chat template.",
            "Leave it out, or take an instruct model." + see("no-chat-template"),
        )
    found: dict[str, Benchmark] = {}
    for entry in entries:
        for benchmark in _load(entry, settings, tokenizer):
            _check_room(benchmark, context)
            if benchmark.name in found:
                raise RecipeError(f"{WHERE}: {entry}: {benchmark.name} is there twice.", "Leave one of them out.")
            found[benchmark.name] = benchmark
    return tuple(found.values())


def _load(entry: str, settings: LmEvalSection, tokenizer: Any) -> Iterator[Benchmark]:
    found = find(entry)
    _check_safe(found, settings)
    with _explained(entry, "lm-eval cannot load it"), quiet():
        found = placed(found)
        loaded = found.manager.load(list(found.specs))
        tasks, groups = loaded["tasks"], loaded.get("groups", {})
        for task in tasks.values():
            _set(task, settings)
        tops = _tops(tasks, groups)
    for name, task in tasks.items():
        metrics = getattr(task, "_metric_fn_list", {}) if task.get_config("process_results") is None else {}
        if unknown := [str(metric) for metric, function in metrics.items() if function is None]:
            raise RecipeError(
                f"{WHERE}: {entry}: lm-eval has no metric {unknown[0]!r}, which {name} names, and cannot load one.",
                "Correct the task's metric_list; metrics of the package evaluate come from the hub.",
            )
    if not tops:
        raise RecipeError(f"{WHERE}: {entry}: holds no task.", "Name a task of it.")
    for name in tops:
        yield _benchmark(entry, name, tasks, groups, settings, tokenizer)


def _benchmark(
    entry: str,
    name: str,
    tasks: Mapping[str, Any],
    groups: Mapping[str, Any],
    settings: LmEvalSection,
    tokenizer: Any,
) -> Benchmark:
    """Rehearse a task or a group, which shows its metrics, and say what decides them."""
    group = groups.get(name)
    own = {task.task_name: task for task in group.get_all_tasks()} if group is not None else {name: tasks[name]}
    inner = {one.name: one for one in (group, *group.get_all_groups())} if group is not None else {}
    pictured = next((key for key, task in own.items() if getattr(task, "MULTIMODAL", False)), None)
    if pictured is not None:
        raise RecipeError(f"{WHERE}: {entry}: {pictured} asks about pictures or sounds.", "Give tasks of texts.")
    with _explained(entry, "a trial answer cannot be scored"), quiet():
        documents = {key: _count(task, settings) for key, task in own.items()}
        content = answered(own, inner, Rehearsal(tokenizer), settings, limit=2, draws=0)
        read = _read(content)
        chat = getattr(tokenizer, "chat_template", None)
        sha256 = identity_of(own, inner.values(), documents, settings, chat)
    first = [name, *(key for key in inner if key != name), *(key for key in own if key != name)]
    ways = {label: read[key].ways[label] for key in first if key in read for label in read[key].values}
    main = next(iter(ways), None)
    if name not in read or main is None:
        raise RecipeError(f"{WHERE}: {entry}: {name} has no metric that is a number.", "Name tasks with such a metric.")
    if ways[main] is None:
        raise RecipeError(
            f"{WHERE}: {entry}: lm-eval does not know which way {main} is better.",
            "Say it in the task's YAML: higher_is_better in its metric_list.",
        )
    version = str(group.version if group is not None else tasks[name].VERSION)
    return Benchmark(name, own, inner, ways, documents, sha256, version)


def _check_safe(found: Found, settings: LmEvalSection) -> None:
    """Refuse tasks that run what the model writes, before any of their own code runs."""
    if settings.confirm_run_unsafe_code:
        return
    for definition in found.definitions():
        if definition.get("unsafe_code"):
            name = definition.get("task") if isinstance(definition.get("task"), str) else found.entry
            raise RecipeError(
                f"{WHERE}: {name} runs code that the model wrote, with your rights.",
                "If you mean to, set evaluation.lm_eval.confirm_run_unsafe_code: true, on a machine you can lose.",
            )


def _check_room(benchmark: Benchmark, context: int | None) -> None:
    """Refuse tasks that generate as many tokens as the context has, or more."""
    for name, task in benchmark.tasks.items():
        if context is None or task.get_config("output_type") != "generate_until":
            continue
        new = normalize_gen_kwargs(task.get_config("generation_kwargs") or {}, MOST_NEW)["max_gen_toks"]
        if new >= context:
            raise ModelError(
                f"{WHERE}: {name} generates up to {new} tokens, and the base's context has {context}.",
                "Lower it: evaluation.lm_eval.gen_kwargs: {max_gen_toks: ...}.",
            )


def _set(task: Any, settings: LmEvalSection) -> None:
    """Give a task the settings of the recipe as lm-eval's own command does: shots of 0 in its definition stay."""
    if settings.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(settings.gen_kwargs), update=True)
    told = task.get_config("num_fewshot")
    if told is None or (settings.num_fewshot is not None and told != 0):
        task.set_config(key="num_fewshot", value=settings.num_fewshot or 0)


def _tops(tasks: Mapping[str, Any], groups: Mapping[str, Any]) -> list[str]:
    """Return the names that count: groups with a metric of their own, and all tasks that are in none of these."""

    def within(group: Any) -> list[str]:
        if group.has_aggregation:
            return [group.name]
        return [name for own in group for name in (within(own) if isinstance(own, Group) else [own.task_name])]

    inner = {own for group in groups.values() for own in group.child_names}
    tops = [name for group in groups.values() if group.name not in inner for name in within(group)]
    return list(dict.fromkeys([*tops, *(name for name in tasks if name not in inner)]))


def _count(task: Any, settings: LmEvalSection) -> int:
    """Return how many documents of a task are asked."""
    total = len(task.eval_docs)
    limit = get_sample_size(task, settings.limit)
    return total if limit is None else min(total, limit)


def _read(content: Mapping[str, Any]) -> dict[str, Task]:
    """Return the metrics in results of lm-eval, by task and group; nothing where none is a number."""
    try:
        return read_tasks(Path("lm-eval"), content)
    except ResultsError:
        return {}


@contextmanager
def _explained(entry: str, what: str) -> Iterator[None]:
    """Turn whatever the code of lm-eval, of a task or of a data set raises within the block into an RsoupError."""
    try:
        yield
    except RsoupError as problem:
        raise RecipeError(f"{WHERE}: {entry}: {problem.message}", problem.hint) from problem
    except Exception as problem:
        said = str(problem)
        if "HF_ALLOW_CODE_EVAL" in said:
            raise RecipeError(
                f"{WHERE}: {entry}: its metric runs code only if the environment allows it.",
                "Set HF_ALLOW_CODE_EVAL=1, on a machine you can lose.",
            ) from problem
        if isinstance(problem, ModuleNotFoundError) and problem.name:
            package = problem.name.partition(".")[0]
            raise MissingPackageError(package, f"{WHERE}: {entry}", f"pip install {package}") from problem
        if isinstance(problem, FileNotFoundError) and "Hub" not in said:
            raise RecipeError(
                f"{WHERE}: {entry}: {first_line(problem)}.",
                "Relative paths in a task's dataset_kwargs begin at the working folder, or where its YAML lies.",
            ) from problem
        trouble = hub_trouble(problem, f"{WHERE}: the data of {entry}", "data set")
        if trouble is not None:
            raise RecipeError(*trouble) from problem
        raise RecipeError(
            f"{WHERE}: {entry}: {what} ({type(problem).__name__}: {first_line(problem)}).",
            "Try lm-eval run --tasks with it; mend its YAML or its functions.",
        ) from problem
