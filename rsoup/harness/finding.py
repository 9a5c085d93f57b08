"""Find tasks of lm-eval: by name, in a YAML file, or in a folder of these."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from rsoup.errors import RecipeError, did_you_mean, first_line
from rsoup.harness.quiet import quiet

WHERE = "evaluation.benchmarks"
OWN = Path(lm_eval.tasks.__file__).parent
"""Where lm-eval has its own tasks."""
DATA = ("data_files", "data_dir")
"""Settings of a data set that may be paths."""

Spec = str | dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What an entry of the list stands for: what lm-eval is asked to load, and where it looks names up."""

    entry: str
    specs: tuple[Spec, ...]
    manager: TaskManager

    def definitions(self) -> Iterator[Mapping[str, Any]]:
        """Yield the definitions of all tasks and groups, functions by their names: none of their code has run."""
        seen: set[str] = set()
        for spec in self.specs:
            yield from self._definitions(spec, seen)

    def _definitions(self, spec: Spec, seen: set[str]) -> Iterator[Mapping[str, Any]]:
        if isinstance(spec, str):
            if spec in seen:
                return
            seen.add(spec)
        entry = self.manager.task_index.get(spec) if isinstance(spec, str) else None
        definition: Mapping[str, Any] | None = spec if isinstance(spec, dict) else entry and entry.cfg
        if definition is None:
            for name in sorted(entry.tags if entry is not None else ()):
                yield from self._definitions(name, seen)
            return
        yield definition
        members = definition.get("task")
        for member in members if isinstance(members, list) else ():
            named = member if isinstance(member, str) else member.get("task", member.get("group"))
            if not isinstance(member, str):
                yield member
            if isinstance(named, str):
                yield from self._definitions(named, seen)
            elif isinstance(member, dict):
                yield from self._definitions(member, seen)


def find(entry: str) -> Found:
    """Return what an entry stands for; RecipeError if there is nothing of the kind."""
    path = Path(entry).expanduser()
    if path.is_dir():
        return _in_folder(entry, path)
    if path.is_file():
        return _in_file(entry, path)
    if path.suffix in (".yaml", ".yml") or entry.startswith((".", "/", "~")):
        raise RecipeError(f"{WHERE}: {entry}: there is no such file or folder.", "Check the path.")
    manager = _defined_together(entry) or _registered()
    if entry not in manager.task_index:
        near = did_you_mean(entry, manager.all_tasks)
        hint = near if near.startswith("Did") else "lm-eval ls tasks lists those it knows; a path names your own."
        raise RecipeError(f"{WHERE}: lm-eval has no task {entry!r}.", hint)
    return Found(entry, (entry,), manager)


def placed(found: Found) -> Found:
    """Return what was found with functions, and with the places of data beside the tasks' own files."""
    index, own = found.manager.task_index, found.manager.include_path
    for name, entry in index.items() if own is not None and not Path(own).is_relative_to(OWN) else ():
        if entry.cfg is None or not entry.yaml_path.resolve().is_relative_to(Path(own).resolve()):
            continue
        folder = entry.yaml_path.resolve().parent
        if _placed(entry.cfg, folder) != entry.cfg:
            index[name] = replace(entry, yaml_path=None, cfg=_placed(load_yaml(entry.yaml_path), folder))
    path = Path(found.entry).expanduser()
    if isinstance(found.specs[0], str):
        return found
    return replace(found, specs=(_placed(load_yaml(path), path.resolve().parent),))


@cache
def _defined_together(name: str) -> TaskManager | None:
    """Return the tasks of the one folder of lm-eval's that defines a task or a group and all of its members.

    None if there is no such folder: the names of all tasks take a while to read.
    """
    pattern = re.compile(rb"^(?:task|group): *[\"']?" + re.escape(name.encode()) + rb"[\"']? *(?:#.*)?$", re.MULTILINE)
    files = [file for file in OWN.rglob("*.yaml") if pattern.search(file.read_bytes())]
    if len(files) != 1:
        return None
    with quiet():
        manager = TaskManager(include_path=files[0].parent, include_defaults=False)
    return manager if _has_all(manager, name) else None


def _has_all(manager: TaskManager, name: str) -> bool:
    entry = manager.task_index.get(name)
    if entry is None or entry.cfg is None:
        return False
    members = entry.cfg.get("task")
    names = [own if isinstance(own, str) else own.get("task") for own in (members if isinstance(members, list) else [])]
    return all(isinstance(own, str) and own != name and _has_all(manager, own) for own in names)


@cache
def _registered() -> TaskManager:
    """Return the tasks that come with lm-eval; reading their names takes a while."""
    with quiet():
        return TaskManager()


def _in_folder(entry: str, path: Path) -> Found:
    for file in sorted(path.rglob("*.yaml")):
        _definition(file)
    with quiet():
        manager = TaskManager(include_path=path, include_defaults=False)
    own = [*manager.all_groups, *manager.all_subtasks]
    found = Found(entry, tuple(own), manager)
    groups = [index for name in manager.all_groups if (index := manager.task_index[name].cfg) is not None]
    members = {
        member if isinstance(member, str) else member.get("task")
        for group in groups
        for member in group.get("task") or ()
    }
    specs = tuple(name for name in own if name not in members)
    if not specs:
        raise RecipeError(
            f"{WHERE}: {entry}: the folder holds no task.", "A task's YAML file ends in .yaml and has the key task."
        )
    return replace(found, specs=specs)


def _in_file(entry: str, path: Path) -> Found:
    config = _definition(path)
    if not isinstance(config.get("task", config.get("group")), (str, list)):
        raise RecipeError(f"{WHERE}: {entry}: is no task: it has no key task.", "Give a task's YAML file.")
    if "group" not in config:
        return Found(entry, (config,), TaskManager(include_defaults=False))
    name, members = config["group"], [own for own in config.get("task") or () if isinstance(own, str)]
    with quiet():
        manager = TaskManager(include_path=path.parent, include_defaults=False)
        if not all(own in manager.task_index for own in members):
            manager = TaskManager(include_path=path.parent)
    own = manager.task_index[name]
    manager.task_index[name] = replace(own, yaml_path=path.resolve(), cfg=config)  # of two in the folder this one
    return Found(entry, (name,), manager)


def _definition(path: Path) -> dict[str, Any]:
    """Return what a YAML file of a task says, functions by their names; RecipeError if it cannot be read."""
    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=False)
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise RecipeError(
            f"{WHERE}: {path}: cannot be read as a task of lm-eval: {first_line(problem)}.", "Mend the file."
        ) from problem
    return config


def _placed(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a definition in which relative paths of data that only the file's folder has lead there."""
    changed = dict(config)
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, dict):
        changed["dataset_kwargs"] = {
            key: _place(value, folder) if key in DATA else value for key, value in arguments.items()
        }
    source = config.get("dataset_path")
    if isinstance(source, str) and ("/" in source or source.startswith(".")):
        changed["dataset_path"] = _place(source, folder)
    return changed


def _place(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _place(own, folder) for key, own in value.items()}
    if isinstance(value, list):
        return [_place(own, folder) for own in value]
    if isinstance(value, str) and not Path(value).exists() and (folder / value).exists():
        return str(folder / value)
    return value
