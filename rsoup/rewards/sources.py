"""Where a reward model lies: a folder or a repository of the hub; of a LoRA adapter, its base model too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rsoup.errors import RewardError, first_line
from rsoup.files import sha256_file, sha256_json
from rsoup.hub import commit_of, folder_or_hub_id, hub_trouble

ADAPTER_CONFIG = "adapter_config.json"
MODEL_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NOT_AN_ADAPTER = (
    "Give a classifier, or an adapter that PEFT saved with task_type SEQ_CLS (TRL's RewardTrainer writes such ones)."
)


@dataclass(frozen=True)
class ModelSource:
    """A folder (absolute) or a hub id with its commit; ``base`` is the model that an adapter belongs to."""

    location: str
    revision: str | None = None
    base: ModelSource | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, None for a hub id."""
        return Path(self.location) if self.revision is None else None

    def identity(self) -> dict[str, Any]:
        """Return what tells the content apart: a hash over a folder's files, the commit of a hub id."""
        own = {"files": folder_sha256(Path(self.location))} if self.revision is None else {"revision": self.revision}
        return own if self.base is None else {**own, "base": self.base.identity()}


def find_source(what: str, model: str, revision: str | None = None, *, is_base: bool = False) -> ModelSource:
    """Find a reward model without loading it; RewardError, which begins with ``what``, if there is none.

    A base model is no adapter itself.
    """
    folder = Path(model).expanduser()
    if not is_base and (folder / ADAPTER_CONFIG).is_file() and not _has(folder, MODEL_WEIGHTS):
        base = _base_of(what, folder / ADAPTER_CONFIG)
        if not _has(folder, ADAPTER_WEIGHTS):
            raise RewardError(f"{what}: the adapter has no weights ({ADAPTER_WEIGHTS[0]}).", "Copy the whole folder.")
        return ModelSource(str(folder.resolve()), base=base)
    location = folder_or_hub_id(model, what, RewardError)
    if folder.is_dir():
        return ModelSource(location)
    try:
        return ModelSource(location, commit_of(location, revision))
    except OSError as problem:
        lacks_it = type(problem.__cause__).__name__ == "RemoteEntryNotFoundError"
        config = _adapter_config(location, revision, here=not lacks_it)
        if is_base or config is None:
            told = f"{what}: cannot be found on the hub: {first_line(problem)}.", "Check the name and the network."
            raise RewardError(*(hub_trouble(problem, what, "reward model") or told)) from problem
    return ModelSource(location, config.parent.name, _base_of(what, config))


def _has(folder: Path, patterns: Sequence[str]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _adapter_config(repository: str, revision: str | None, *, here: bool) -> Path | None:
    """Return the configuration of an adapter on the hub, or, ``here``, of the machine's copy; None if there is none."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, ADAPTER_CONFIG, revision=revision, local_files_only=here))
    except Exception:
        return None


def _base_of(what: str, config: Path) -> ModelSource:
    """Return the base model that an adapter's configuration names: a path from here or from its folder, or a hub id."""
    try:
        content: dict[str, Any] = dict(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise RewardError(f"{what}: {config.name} cannot be read: {first_line(problem)}.", NOT_AN_ADAPTER) from problem
    task, name = content.get("task_type"), content.get("base_model_name_or_path")
    if task not in ("SEQ_CLS", None):
        raise RewardError(
            f"{what}: is an adapter for another task ({task}), which scores no texts as a whole.", NOT_AN_ADAPTER
        )
    if not name:
        raise RewardError(f"{what}: the adapter names no base model.", f"Set base_model_name_or_path in {config}.")
    beside = config.parent / name
    found = str(beside) if not Path(name).expanduser().is_dir() and beside.is_dir() else str(name)
    about = f"{what}: the adapter's base model {name}"
    if not Path(found).expanduser().is_dir() and (found.count("/") != 1 or found.startswith((".", "/", "~"))):
        raise RewardError(
            f"{about} is not there.", f"Put it there, or set base_model_name_or_path in {config} to where it is."
        )
    return find_source(about, found, content.get("revision"), is_base=True)


@cache
def folder_sha256(folder: Path) -> str:
    """Return a hash over the files of a model folder."""
    return sha256_json([[path.name, sha256_file(path)] for path in sorted(folder.iterdir()) if path.is_file()])
