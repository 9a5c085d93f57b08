"""The tokenizer and chat templates that a mix takes over from its adapters: those that all of them have alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rsoup.adapters import Adapter
from rsoup.adapters.companions import TOKENIZER, VOCABULARY, is_template


def shared_companions(adapters: Sequence[Adapter]) -> tuple[dict[str, Path], list[str]]:
    """Return the files that all adapters have alike, by name, and warnings about those that are left behind."""
    files: dict[str, Path] = {}
    warnings: list[str] = []
    kinds: dict[str, Callable[[str], bool]] = {
        "tokenizer": lambda name: not is_template(name),
        "chat template": is_template,
    }
    for kind, belongs in kinds.items():
        found = [{name: own for name, own in adapter.companions.items() if belongs(name)} for adapter in adapters]
        if all(own == found[0] for own in found):
            path = adapters[0].path
            files |= {name: path / name for name in found[0]} if path else {}
        else:
            warnings.append(_left_behind(kind, adapters, found))
    return files, warnings


def _left_behind(kind: str, adapters: Sequence[Adapter], found: Sequence[Mapping[str, str]]) -> str:
    having = [_path(adapter) for adapter, own in zip(adapters, found, strict=True) if own]
    lacking = [_path(adapter) for adapter, own in zip(adapters, found, strict=True) if not own]
    if lacking:
        return f"{having[0]} has a {kind} of its own, and {lacking[0]} has none: it is not taken over."
    names = {name for own in found for name in own if any(own.get(name) != other.get(name) for other in found)}
    return f"the adapters' {kind}s differ ({', '.join(sorted(names))}): none is taken over."


def _path(adapter: Adapter) -> str:
    return str(adapter.path or adapter.name)


def copy_companions(files: Mapping[str, Path], folder: Path) -> None:
    """Copy files under their names into a folder."""
    for name, path in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)


def replaced(files: Mapping[str, Path], base: Iterable[str]) -> set[str]:
    """Return the files of a base that adapters' files take the place of: a whole tokenizer replaces a whole one."""
    whole = any(name in VOCABULARY for name in files)
    templates = any(is_template(name) for name in files)
    return {
        name for name in base if name in files or (is_template(name) and templates) or (name in TOKENIZER and whole)
    }
