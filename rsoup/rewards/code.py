"""What the code of a reward function is: its file, and what it imports of the files beside it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from rsoup.files import sha256_file, sha256_json

INSTALLED = ("site-packages", "dist-packages")


def search_working_folder() -> None:
    """Let modules be found in the folder the command is called in, which an installed command does not search."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def code_sha256(source: str) -> str | None:
    """Return a hash of the code of a module, or of a .py file; None if there is none.

    Files beside it that it imports, and those that these import, count too; what is installed does not.
    """
    file, root = _found(source)
    if file is None or not file.is_file():
        return None
    files = [file, *_imported(file, root)] if root else [file]
    hashes = [sha256_file(own) for own in files]
    return hashes[0] if len(files) == 1 else sha256_json(hashes)


def _found(source: str) -> tuple[Path | None, Path | None]:
    """Return the file of a module or of a .py file, and the folder that its imports begin in (None: installed)."""
    if source.endswith(".py"):
        file = Path(source).expanduser().resolve()
        return file, file.parent
    search_working_folder()
    try:
        spec = importlib.util.find_spec(source)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return None, None
    file = Path(spec.origin).resolve()
    parts = len(source.split(".")) - (file.name != "__init__.py")
    local = not any(name in file.parts for name in INSTALLED) and not file.is_relative_to(Path(sys.base_prefix))
    return file, file.parents[parts] if local else None


def neighbours(file: Path) -> list[Path]:
    """Return the files beside a file, or below its folder, that it imports, directly or not."""
    return _imported(file, file.parent)


def _imported(file: Path, root: Path) -> list[Path]:
    """Return the files under a folder that a file imports, directly or not, in the order of their names."""
    found, new = {file}, [file]
    while new:
        own = {path.resolve() for one in new for path in imports_of(one, root)}
        new = sorted(path for path in own - found if path.is_relative_to(root))
        found |= {*new}
    return sorted(found - {file})


def imports_of(file: Path, root: Path) -> list[Path]:
    """Return the files under a folder that the import statements of a file name; none if it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    return [path for node in ast.walk(tree) for base, name in _names(node, file, root) for path in _files(base, name)]


def _names(node: ast.AST, file: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield what a statement imports: dotted names, each with the folder that it begins in."""
    if isinstance(node, ast.Import):
        yield from ((root, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else root
        begin = f"{node.module}." if node.module else ""
        yield from ((base, f"{begin}{alias.name}") for alias in node.names)


def _files(base: Path, name: str) -> Iterator[Path]:
    """Yield the files of a dotted name's modules, its packages among them; its end may be no module."""
    place = base
    for part in name.split("."):
        place = place / part
        own = next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)
        if own is not None:
            yield own
