"""Which tensors of several models are one tensor of their mix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rsoup.adapters.names import canonical
from rsoup.adapters.tensorfile import DTYPES, TensorInfo
from rsoup.errors import ModelError
from rsoup.mixing.base import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from rsoup.mixing.checkpoints.models import Model
from rsoup.mixing.chunks import read_into

_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
"""Ends of the names of constants that older versions of transformers saved, and newer ones leave out."""
_ONE_ARCHITECTURE = "Mix models of one architecture, made from one base."
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Place:
    """Where a model keeps a tensor."""

    path: Path
    info: TensorInfo


@dataclass(frozen=True)
class Target:
    """A tensor of the mix, and where each ingredient keeps its own.

    ``common`` counts the elements that all have; the first ingredient's own follow, of a larger vocabulary. One that is
    ``copied`` is the first's, byte by byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    places: tuple[Place, ...]
    common: int
    copied: bool = False

    @property
    def size(self) -> int:
        """The number of bytes."""
        first = self.places[0].info
        return first.end - first.start if self.copied else self.count * DTYPES[self.dtype].itemsize

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Alignment:
    """The tensors of a mix in the shards of the first ingredient.

    ``tied`` tells whether its output embeddings are its input embeddings; ``warnings`` what to know about it.
    """

    shards: tuple[tuple[str, tuple[Target, ...]], ...]
    tied: bool
    warnings: tuple[str, ...]

    @property
    def targets(self) -> Iterator[Target]:
        """Every tensor, shard by shard."""
        return (target for _, targets in self.shards for target in targets)


def align(models: Sequence[Model], *, dtype: str | None = None, common_vocabulary: bool = False) -> Alignment:
    """Match the tensors of models by name; raise ModelError by the name of the first one that does not correspond.

    The first model gives the layout and the dtypes, unless ``dtype`` names one for all.
    """
    models = [models[0], *(named_like(model, models[0]) for model in models[1:])]
    heads = [_Head(model) for model in models]
    names = [head.names for head in heads]
    warnings = [warning for head in heads for warning in head.warnings]
    head = next((head.stored for head in heads if not head.tied and head.stored), None)
    _check_names(models, names, {head, *(own.stored for own in heads)})
    untied = head is not None and any(own.tied for own in heads)
    if untied:
        told = ", ".join(model.source for model, own in zip(models, heads, strict=True) if own.tied)
        warnings.append(f"{told} ties its embeddings and others do not: the mix has output embeddings of its own.")

    def target(name: str) -> Target:
        if name == head:
            places = [own.place() for own in heads]
        else:
            places = [Place(model.file(name), model.info(name)) for model in models if name in model.base.where]
        return _target(models, name, places, dtype, common_vocabulary)

    shards: dict[str, list[Target]] = {}
    for shard in models[0].base.shards:
        own = [target(name) for name in shard.tensors if name in names[0]]
        if own:
            shards[shard.path.name] = own
    if head is not None and heads[0].tied:
        shards[list(shards)[-1]].append(target(head))
    return Alignment(tuple((name, tuple(own)) for name, own in shards.items()), head is None, tuple(warnings))


def named_like(model: Model, first: Model) -> Model:
    """Return a model under the names that another has for its tensors, where they differ by what stands around them.

    Checkpoints of a trunk alone leave its name out (the hub's GPT-2), and versions of transformers nest it otherwise.
    """
    lacking = sorted(model.base.where.keys() - first.base.where.keys())
    spare = {canonical(name): name for name in first.base.where.keys() - model.base.where.keys()}
    new = {name: spare[canonical(name)] for name in lacking if canonical(name) in spare}
    if not new or len(set(new.values())) < len(new):
        return model
    shards = tuple(
        replace(shard, tensors={new.get(name, name): info for name, info in shard.tensors.items()})
        for shard in model.base.shards
    )
    where = {name: shard for shard in shards for name in shard.tensors}
    return replace(model, base=replace(model.base, shards=shards, where=where))


class _Head:
    """A model's output embeddings: its own, or its input embeddings if it ties them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.stored = _find(model, OUTPUT_EMBEDDINGS)
        self._embeddings = _find(model, INPUT_EMBEDDINGS)
        self.warnings: list[str] = []
        self.tied = model.ties
        if self.tied and self.stored and not self._same():
            self.tied = False
            self.warnings.append(
                f"{model.source} is said to tie its embeddings, but its {self.stored} differs: it counts as untied."
            )

    @property
    def names(self) -> set[str]:
        """The names of all tensors that are not another one under a second name."""
        return {name for name in self._model.base.where if not (self.tied and name == self.stored)}

    def _same(self) -> bool:
        if self.stored is None or self._embeddings is None:
            return False
        places = [Place(self._model.file(name), self._model.info(name)) for name in (self.stored, self._embeddings)]
        return places[0].info.dtype == places[1].info.dtype and same_bytes(places)

    def place(self) -> Place:
        """Return where the output embeddings are kept."""
        name = self._embeddings if self.tied else self.stored
        if name is None:
            raise ModelError(
                f"{self._model.source}: has no output embeddings, and no input embeddings that could stand for them.",
                _ONE_ARCHITECTURE,
            )
        return Place(self._model.file(name), self._model.info(name))


def same_bytes(places: Sequence[Place]) -> bool:
    """Tell whether tensors of one size hold the same bytes."""
    sizes = {place.info.end - place.info.start for place in places}
    if len(sizes) > 1:
        return False
    [size] = sizes
    buffers = [np.empty(min(size, _CHUNK), np.uint8) for _ in places]
    files = [place.path.open("rb") for place in places]
    try:
        for start in range(0, size, _CHUNK):
            count = min(_CHUNK, size - start)
            parts = zip(places, files, buffers, strict=True)
            read = [read_into(file.fileno(), place.info.start + start, own[:count]) for place, file, own in parts]
            if any(not np.array_equal(read[0], own) for own in read[1:]):
                return False
        return True
    finally:
        for file in files:
            file.close()


def _find(model: Model, modules: Sequence[str]) -> str | None:
    """Return the matrix of a module of the model itself, not of one of its layers."""
    for name in model.base.where:
        parts = name.split(".")
        own = parts[-1] == "weight" and parts[-2:-1] and parts[-2] in modules and not any(map(str.isdigit, parts))
        if own and len(model.info(name).shape) == 2:
            return name
    return None


def _check_names(models: Sequence[Model], names: Sequence[set[str]], heads: set[str | None]) -> None:
    first = models[0]
    for model, own in zip(models[1:], names[1:], strict=True):
        for name in sorted(names[0] ^ own):
            if name in heads or name.endswith(_BUFFERS):
                continue
            having, lacking = (first, model) if name in names[0] else (model, first)
            raise ModelError(f"{lacking.source} has no tensor {name}, which {having.source} has.", _ONE_ARCHITECTURE)


def _target(
    models: Sequence[Model], name: str, places: Sequence[Place], dtype: str | None, common_vocabulary: bool
) -> Target:
    info = places[0].info
    count = math.prod(info.shape)
    if len(places) < len(models) or not count:  # a constant that some do not save
        return Target(name, info.dtype, info.shape, (places[0],), count, copied=True)
    common = min(_common(models, name, places, common_vocabulary), count)
    floats = [place.info.dtype in DTYPES for place in places]
    if all(floats):
        return Target(name, dtype or info.dtype, info.shape, tuple(places), common)
    if common == count and len({place.info.dtype for place in places}) == 1 and same_bytes(places):
        return Target(name, info.dtype, info.shape, (places[0],), count, copied=True)
    which = floats.index(False)
    raise ModelError(
        f"{models[which].source}: {name} has dtype {places[which].info.dtype} and differs between the models; only "
        f"{', '.join(DTYPES)} can be mixed.",
        "Convert the model to bfloat16 or float32 first.",
    )


def _common(models: Sequence[Model], name: str, places: Sequence[Place], common_vocabulary: bool) -> int:
    """Return how many elements all have; only a vocabulary may have another number of rows, if that is allowed."""
    shape = places[0].info.shape
    for model, place in zip(models[1:], places[1:], strict=True):
        other = place.info.shape
        if other == shape:
            continue
        by_token = name.split(".")[-2:-1] and name.split(".")[-2] in (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS)
        if not by_token or other[1:] != shape[1:]:
            raise ModelError(
                f"{model.source}: {name} has shape {other}, in {models[0].source} {shape}.", _ONE_ARCHITECTURE
            )
        if not common_vocabulary:
            raise ModelError(
                f"{model.source} has {other[0]:,} rows of {name}, {models[0].source} {shape[0]:,}: one vocabulary was "
                "resized, so the last rows have no counterpart.",
                f"rsoup mix --common-vocabulary mixes what all have, and keeps the rest of {models[0].source}.",
            )
    rows = min(place.info.shape[0] for place in places) if shape else 1
    return rows * math.prod(shape[1:])
