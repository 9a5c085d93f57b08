"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rsoup.errors import RsoupError, reason_of

_ABANDONED = 60.0
"""Seconds after which a temporary file or folder that no process holds counts as left behind by a kill."""
_DRAWN = "[!.]" * 8
"""What tempfile draws for names."""
_OS_ERROR = re.compile(r"os error (\d+)")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_up(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        _is_ours(handle)
        with _of_the_system(path):
            yield partial
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that is gone after the block; remove what killed processes left of such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_up(path)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    owned = os.open(partial, os.O_RDONLY)
    try:
        _is_ours(owned)
        with _of_the_system(path):
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(owned)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place (an older one goes) if the block succeeds."""
    with temporary_folder(path) as partial:
        yield partial
        partial.chmod(0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            path.replace(old / path.name)
            partial.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.replace(path)


@contextmanager
def _of_the_system(path: Path) -> Iterator[None]:
    """Raise what the system said within the block as an OSError, where a writer of safetensors has it as text."""
    try:
        yield
    except SafetensorError as problem:
        code = _OS_ERROR.search(str(problem))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from problem


def _clear_up(path: Path) -> None:
    """Remove what killed processes left of ``path``; a folder they were replacing comes back if nothing has yet."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{_DRAWN}.*"):
        with suppress(OSError), _abandoned(left) as abandoned:
            if abandoned and left.suffix == ".old" and not path.exists():
                (left / path.name).replace(path)
            if abandoned and left.suffix in (".partial", ".old"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def _abandoned(left: Path) -> Iterator[bool]:
    """Hold a temporary file or folder within the block, and yield whether no process is at work on it any more."""
    handle = os.open(left, os.O_RDONLY)
    try:
        yield time.time() - os.fstat(handle).st_mtime > _ABANDONED and _is_ours(handle)
    finally:
        os.close(handle)


def _is_ours(handle: int) -> bool:
    """Hold an open file or folder until it is closed, or the process dies; tell whether that can be done."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another holds it, or the file system has no locks
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, schema: int, what: str, error: type[RsoupError]) -> dict[str, Any]:
    """Read a JSON object that carries ``"schema": schema``; ``what`` names the kind of file in errors."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise error(f"{path}: cannot be read as {what} ({reason_of(problem)}).", "Check the path.") from problem
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{path}: is not valid JSON ({problem}).", "Make it again with the command that wrote it."
        ) from problem
    if not isinstance(content, dict) or "schema" not in content:
        raise error(f"{path}: is not {what}: it has no schema number.", f"Give {what} that rsoup wrote.")
    if content["schema"] != schema:
        raise error(
            f"{path}: has schema {content['schema']!r}; this version of rsoup reads schema {schema} of {what}.",
            "Make the file again with this version, or use the version that wrote it.",
        )
    return content


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def weights_sha256(folder: Path) -> str:
    """Return one hash over the weight files of a model folder, computed once in the life of the process."""
    return hash_weights(folder)


def hash_weights(folder: Path) -> str:
    """Return one hash over the weight files of a model folder, in the order of their names."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if len(files) == 1:
        return sha256_file(files[0])
    return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def sha256_json(content: Any) -> str:
    """Return the hexadecimal SHA-256 of ``content`` written as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
