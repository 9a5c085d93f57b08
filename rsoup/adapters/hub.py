"""Find an adapter or a model: a local folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rsoup.errors import AdapterError, MissingPackageError

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def find_folder(source: str | Path, wanted: Sequence[str]) -> Path:
    """Return a local folder; for a name ``owner/name`` without one, fetch the ``wanted`` files from the hub."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise AdapterError(f"{folder}: is a file.", "Give the folder that holds it.")
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _download(source, wanted)
    raise AdapterError(f"{folder}: there is no such folder.", "Check the path, or give a hub id as owner/name.")


def _download(repository: str, wanted: Sequence[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as problem:
        raise MissingPackageError(
            "huggingface_hub", f"the hub id {repository}", "pip install huggingface_hub"
        ) from problem
    what = f"{repository}: is not a local folder, and "
    try:
        return Path(snapshot_download(repository, allow_patterns=list(wanted)))
    except errors.GatedRepoError as problem:
        raise AdapterError(
            f"{what}its hub repository is gated.",
            f"Ask for access at https://huggingface.co/{repository}, then log in.",
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise AdapterError(
            f"{what}the hub has no such repository, or it is private.",
            "Check the name; if it is private, log in first.",
        ) from problem
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as problem:
        raise AdapterError(
            f"{what}the hub cannot be reached ({type(problem).__name__}).",
            "Check the network and HF_HUB_OFFLINE, or download the adapter once and give its folder.",
        ) from problem
