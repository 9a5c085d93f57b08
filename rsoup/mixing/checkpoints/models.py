"""A whole model as an ingredient: told apart from an adapter by its files, and read without opening its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rsoup.adapters.config import CONFIG_FILE
from rsoup.adapters.hub import find_folder
from rsoup.adapters.kinds import refuse_other_folders
from rsoup.adapters.tensorfile import TensorInfo
from rsoup.errors import AdapterError, ModelError
from rsoup.files import hash_weights
from rsoup.mixing.base import WANTED, BaseModel, read_base

MODEL_FILE = "config.json"
Kind = Literal["adapter", "model"]


@dataclass(frozen=True)
class Model:
    """A model as transformers saves it. ``source`` is what the user called it: a folder or a hub id."""

    name: str
    source: str
    base: BaseModel

    @property
    def path(self) -> Path:
        """The folder that holds it."""
        return self.base.folder

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json."""
        return self.base.config

    @cached_property
    def sha256(self) -> str:
        """One hash over its weight files, computed when it is first asked for."""
        return hash_weights(self.path.resolve())

    @property
    def identity(self) -> str:
        """What decides its weights."""
        return self.sha256

    @cached_property
    def ties(self) -> bool:
        """Whether its output embeddings are its input embeddings, as its configuration says."""
        return self.base.ties_embeddings

    def companions(self) -> dict[str, Path]:
        """Return the files beside its weights, by their names in its folder."""
        return {path.relative_to(self.path).as_posix(): path for path in self.base.companions()}

    def info(self, tensor: str) -> TensorInfo:
        """Return where a tensor lies in its shard."""
        return self.base.info(tensor)

    def file(self, tensor: str) -> Path:
        """Return the shard that holds a tensor."""
        return self.base.where[tensor].path


def kind_of(source: str | Path) -> Kind | None:
    """Tell what a folder or a hub id holds, by its files: an adapter, a model, or neither; None for no such folder."""
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists():
            return None
        folder = find_folder(source, (CONFIG_FILE, MODEL_FILE))
    if (folder / CONFIG_FILE).is_file():
        return "adapter"
    return "model" if (folder / MODEL_FILE).is_file() else None


def are_models(sources: Sequence[str | Path]) -> bool:
    """Tell whether the ingredients of a mix are whole models; AdapterError if only some of them are.

    What is neither counts as an adapter, whose reading says what is wrong.
    """
    kinds = {str(source): kind_of(source) for source in sources}
    models = [source for source, kind in kinds.items() if kind == "model"]
    others = [source for source, kind in kinds.items() if kind != "model"]
    for source in others if models else ():
        if kinds[source] is None:
            refuse_other_folders(Path(source))
            raise AdapterError(
                f"{source}: holds neither an adapter ({CONFIG_FILE}) nor a model ({MODEL_FILE}).", "Check the path."
            )
        raise AdapterError(
            f"{models[0]} is a whole model, and {source} an adapter: a difference from its base, which does not mix "
            "with a model's own weights.",
            "Merge the adapter first (rsoup mix ADAPTER --into BASE -o DIR), or make an adapter of the model "
            "(rsoup mix --extract MODEL --base BASE --rank 64 -o DIR).",
        )
    return bool(models)


def read_model(source: str | Path) -> Model:
    """Read the layout of a model from a folder or a hub id; ModelError if it is quantised, damaged or a pickle."""
    folder = find_folder(source, WANTED)
    if (folder / CONFIG_FILE).is_file() and not (folder / MODEL_FILE).is_file():
        raise ModelError(f"{source}: is an adapter, and a whole model is needed here.", "Give the folder of a model.")
    base = read_base(folder)
    known = str(source).rstrip("/").rsplit("/", 1)[-1] if not Path(source).is_dir() else folder.resolve().name
    return Model(known, str(source), base)
