"""Functions of a user's own as rewards."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup.errors import RewardError, first_line
from rsoup.rewards import search_working_folder
from rsoup.rewards.samples import Sample


@dataclass(frozen=True)
class Function:
    """A function f(prompts, completions) -> one number for each completion; the prompts are the posts."""

    call: Callable[..., Any]

    def __call__(self, samples: Sequence[Sample]) -> Any:
        """Return what the function returns for the posts and the completions."""
        return self.call([sample.post for sample in samples], [sample.completion for sample in samples])


def load_function(where: str) -> Function:
    """Import ``module:function`` or ``path/to/file.py:function``."""
    source, _, attribute = where.rpartition(":")
    hint = "Write module:function or path/to/file.py:function."
    if not source:
        raise RewardError(f"{where}: is not a function.", hint)
    try:
        with redirect_stdout(sys.stderr):
            module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    except FileNotFoundError as problem:
        raise RewardError(f"{where}: there is no file {source}.", "Check the path.") from problem
    except ModuleNotFoundError as problem:
        raise RewardError(f"{where}: cannot be imported ({problem}).", hint) from problem
    except (Exception, SystemExit) as problem:
        raise RewardError(
            f"{where}: importing it raised {type(problem).__name__}: {first_line(problem)}.", f"Mend {source}."
        ) from problem
    function = getattr(module, attribute, None)
    if not callable(function):
        raise RewardError(f"{where}: {source} has no function {attribute}.", hint)
    return Function(function)


def _import_module(name: str) -> Any:
    search_working_folder()
    return importlib.import_module(name)


def _import_file(path: Path) -> Any:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    if str(path.parent) not in sys.path:  # a file may import its neighbours
        sys.path.append(str(path.parent))
    name = f"rsoup_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
