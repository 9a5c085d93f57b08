"""Import what a user names as a reward."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rsoup.errors import RewardError, first_line
from rsoup.files import sha256_file
from rsoup.rewards.code import imports_of, search_working_folder


def import_callable(where: str) -> Callable[..., Any]:
    """Import ``module:name`` or ``path/to/file.py:name``: a function, a callable object, or a class of such.

    A dotted name is an attribute of another: ``file.py:judge.score``.
    """
    check_file(where)
    source, _, attribute = where.rpartition(":")
    hint = "Write module:function or path/to/file.py:function."
    try:
        with redirect_stdout(sys.stderr):
            module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
            function = _named(module, attribute)
            if inspect.isclass(function):
                function = _made(function, where)
    except RewardError:
        raise
    except ModuleNotFoundError as problem:
        raise RewardError(f"{where}: cannot be imported ({problem}).", hint) from problem
    except (Exception, SystemExit) as problem:
        raise RewardError(
            f"{where}: importing it raised {type(problem).__name__}: {first_line(problem)}.",
            "Name it as a module of its package (package.module:function), and call rsoup from where that lies."
            if "relative import" in str(problem)
            else f"Mend {source}.",
        ) from problem
    if function is None:
        raise RewardError(f"{where}: {source} has no function {attribute}.", hint)
    if not callable(function):
        raise RewardError(
            f"{where}: is no function, but of the type {type(function).__name__}.", _callable_hint(function)
        )
    found: Callable[..., Any] = function
    return found


def check_file(where: str) -> None:
    """Raise RewardError if a name cannot be that of a function, or names one of a file that is not there."""
    source = where.rpartition(":")[0]
    if not source:
        raise RewardError(f"{where}: is not a function.", "Write module:function or path/to/file.py:function.")
    if source.endswith(".py") and not Path(source).expanduser().is_file():
        raise RewardError(f"{where}: there is no file {source}.", "Check the path.")


def _named(module: Any, name: str) -> Any:
    """Return what a dotted name stands for in a module, None if there is no such thing."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _callable_hint(thing: Any) -> str:
    """Return how a thing that cannot be called may be given all the same."""
    methods = [
        name for name in dir(thing) if not name.startswith("_") and inspect.isroutine(getattr(thing, name, None))
    ]
    if (type(thing).__module__ == "builtins" and not isinstance(thing, type)) or not methods:
        return "Name a function, or an object that can be called."
    return f"Name a method of it (file.py:object.{methods[0]}), or give it __call__."


def _made(kind: type, where: str) -> Any:
    """Return an object of a class whose objects are the reward."""
    made_of = inspect.signature(kind).parameters.values()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needs = [one.name for one in made_of if one.default is one.empty and one.kind not in free]
    scores = any("__call__" in vars(one) for one in kind.__mro__)
    if needs or not scores:
        if not scores:
            raise RewardError(f"{where}: is a class without __call__.", _callable_hint(kind))
        hint = "Give an object of it, made in the file: judge = Judge(...)."
        raise RewardError(f"{where}: is a class that needs {', '.join(needs)}.", hint)
    return kind()


def _import_module(name: str) -> Any:
    search_working_folder()
    return importlib.import_module(name)


OURSELVES = "rsoup"
"""What is loaded already, wherever the file lies."""
_MODULES: dict[tuple[Path, str], Any] = {}
"""The modules of files, by the files and their content."""


def _import_file(path: Path) -> Any:
    """Import a file, once for all rewards in it; it may import its neighbours."""
    path = path.expanduser().resolve()
    key = path, sha256_file(path)
    if key not in _MODULES:
        name = f"rsoup_reward_{path.stem}_{key[1][:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up there
        with _searching_first(str(path.parent)):
            _check_neighbours(path)
            spec.loader.exec_module(module)
        _check_neighbours(path)
        _MODULES[key] = module
    return _MODULES[key]


@contextmanager
def _searching_first(folder: str) -> Iterator[None]:
    """Let modules be found in a folder, within the block before all others, as Python does for a script."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _check_neighbours(path: Path) -> None:
    """Raise RewardError if an import that means a file beside this one finds another module of its name."""
    neighbours = {own for own in imports_of(path, path.parent) if own != path}
    for own in sorted(neighbours):
        top = own.relative_to(path.parent).parts[0].removesuffix(".py") if own.is_relative_to(path.parent) else ""
        other = _place_of(top) if top and top != OURSELVES else None
        if other is not None and path.parent not in other.parents:
            raise RewardError(
                f"{path}: its import of {top} finds {other}, not the file beside it.",
                f"Give the {top} beside it another name.",
            )


def _place_of(name: str) -> Path | None:
    """Return the file of a module that is loaded, or would be; None if it has none."""
    module = sys.modules.get(name)
    try:
        spec = importlib.util.find_spec(name) if module is None else None
    except (ImportError, ValueError):
        spec = None
    file = getattr(module, "__file__", None) or (spec.origin if spec else None)
    return Path(file).resolve() if file and Path(file).is_file() else None
