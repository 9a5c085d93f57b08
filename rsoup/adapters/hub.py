"""Find an adapter or a model: a local folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rsoup.errors import AdapterError, MissingPackageError, first_line
from rsoup.hub import hub_trouble

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def find_folder(source: str | Path, wanted: Sequence[str]) -> Path:
    """Return a local folder; for a name ``owner/name`` without one, fetch the ``wanted`` files from the hub."""
    check_source(source)
    folder = Path(source)
    return folder if folder.is_dir() else _download(str(source), wanted)


def check_source(source: str | Path) -> None:
    """Raise AdapterError if a source is neither a folder nor may be a hub id."""
    folder = Path(source)
    if folder.is_dir():
        return
    if folder.exists():
        raise AdapterError(f"{folder}: is a file.", "Give the folder that holds it.")
    if not (isinstance(source, str) and _HUB_ID.fullmatch(source)):
        raise AdapterError(f"{folder}: there is no such folder.", "Check the path, or give a hub id as owner/name.")


def _download(repository: str, wanted: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as problem:
        raise MissingPackageError(
            "huggingface_hub", f"the hub id {repository}", "pip install huggingface_hub"
        ) from problem
    try:
        return Path(snapshot_download(repository, allow_patterns=list(wanted)))
    except Exception as problem:  # the hub's client raises errors of its own and of the libraries under it
        failed = f"{repository}: could not be fetched from the hub ({first_line(problem)}).", "Try again later."
        message, hint = hub_trouble(problem, repository, "repository") or failed
        raise AdapterError(message, f"{hint} If {repository} was to be a folder: it is not there.") from problem
