"""What decides the requests and the metrics of a task: its definition, its documents, and the code it names."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lm_eval import __version__
from lm_eval.utils import handle_non_serializable

from rsoup.files import sha256_file, sha256_json
from rsoup.recipe import LmEvalSection

PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "task_alias", "tag")
"""Parts of a definition that say where documents lie, which are identified themselves, or what a task is called."""
HOW = {"batch_size", "confirm_run_unsafe_code"}
"""Settings that change no answer but by rounding."""


def identity_of(
    tasks: Mapping[str, Any], groups: Iterable[Any], documents: Mapping[str, int], settings: LmEvalSection, chat: Any
) -> str:
    """Return a hash of what decides all that tasks and groups say of a model; ``documents`` count those asked."""
    own = {name: _of_task(task, documents[name]) for name, task in sorted(tasks.items())}
    tops = [[group.name, _plain(group.aggregate_metric_list), group.version] for group in groups]
    asked = settings.model_dump(mode="json", exclude=HOW | {"limit"})
    return sha256_json([__version__, own, tops, asked, chat if settings.apply_chat_template else None])


def _of_task(task: Any, count: int) -> list[Any]:
    config = getattr(task, "config", None)
    definition = {key: own for key, own in vars(config).items() if key not in PLACES} if config is not None else {}
    metadata = definition.get("metadata")
    if isinstance(metadata, dict):
        definition["metadata"] = {key: own for key, own in metadata.items() if key != "config_source"}
    shots = [] if not task.get_config("num_fewshot") else task.fewshot_docs()
    asked = (document for _, document in task.doc_iterator(limit=count))
    kind = type(task)
    code = None if kind.__module__.startswith("lm_eval.api") else _code(kind)
    return [_plain(definition), code, task.VERSION, _documents(asked), _documents(shots)]


def _documents(documents: Iterable[Any] | None) -> str:
    """Return a hash of documents."""
    return sha256_json(
        [json.dumps(own, sort_keys=True, default=handle_non_serializable) for own in documents]
        if documents is not None
        else None
    )


def _plain(value: Any) -> Any:
    """Return a part of a definition as JSON has it; code is its name and the file's hash."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {own.name: getattr(value, own.name) for own in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(own) for own in (value if isinstance(value, (list, tuple)) else sorted(value, key=str))]
    if isinstance(value, functools.partial):
        return [_code(value.func), _plain(value.args), _plain(value.keywords)]
    return _code(value) if callable(value) else repr(value)


def _code(value: Callable[..., Any]) -> list[str | None]:
    """Return what a function or a class is called, and a hash of the file that it is in."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    try:
        file = inspect.getsourcefile(value if hasattr(value, "__qualname__") else type(value))
    except TypeError:
        file = None
    there = file is not None and Path(file).is_file()
    return [name, sha256_file(Path(file)) if there and file is not None else None]
