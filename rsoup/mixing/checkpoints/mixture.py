"""A mix of whole models, worked out tensor by tensor when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsoup.adapters.tensorfile import DTYPES, Array, all_finite
from rsoup.errors import AdapterError, ModelError, did_you_mean
from rsoup.mixing.casting import narrow
from rsoup.mixing.checkpoints import reading
from rsoup.mixing.checkpoints.alignment import Alignment, Target, align
from rsoup.mixing.checkpoints.differences import compare_models
from rsoup.mixing.checkpoints.models import Model, read_model
from rsoup.mixing.checkpoints.reading import SINGLE, Files, chunk_count
from rsoup.mixing.checkpoints.rules import RULES, Chunk, Compute, Shares, check_rule
from rsoup.mixing.methods import Options
from rsoup.mixing.parallel import parallel
from rsoup.mixing.weights import check_weights

_DEFAULTS = Options()

Source = Model | str | Path


@dataclass(frozen=True)
class Mixture:
    """Models, what is done with them, and the tensors that this gives; no weight has been read yet."""

    models: tuple[Model, ...]
    weights: tuple[float, ...]
    base: Model | None
    base_weight: float
    method: str
    options: Options
    dtype: str | None
    common_vocabulary: bool
    alignment: Alignment
    warnings: tuple[str, ...]

    @property
    def ingredients(self) -> tuple[Model, ...]:
        """The models, and the base as the last one."""
        return (*self.models, *([self.base] if self.base else []))

    @property
    def size(self) -> int:
        """The bytes of its weights."""
        return sum(target.size for target in self.alignment.targets)

    def shares(self) -> Shares:
        """Return what is mixed with which weights; a method that draws gets what tells the models apart."""
        keys = tuple(model.sha256 for model in self.models) if self.method == "dare" else ()
        return Shares(self.weights, self.base_weight, self.base is not None, self.options, keys)


def mix_models(
    models: Sequence[Source],
    weights: Sequence[float],
    *,
    method: str = "linear",
    base: Source | None = None,
    options: Options = _DEFAULTS,
    base_weight: float = 0.0,
    allow_extrapolation: bool = False,
    common_vocabulary: bool = False,
    dtype: str | None = None,
) -> Mixture:
    """Plan a mix of whole models (folders or hub ids): check that they correspond, and say what differs.

    ``method`` is a key of ``RULES``, where each has its formula and source. The first model gives layout, dtypes (but
    for ``dtype``: F32, F16 or BF16), configuration and tokenizer. With ``common_vocabulary`` a resized vocabulary is
    mixed as far as all have it. Raise ModelError or AdapterError if the models do not correspond.
    """
    check_weights(weights, len(models), base_weight, extrapolate=allow_extrapolation, what="model")
    check_rule(method, options, has_base=base is not None, base_weight=base_weight)
    if dtype is not None and dtype not in DTYPES:
        raise AdapterError(f"There is no dtype {dtype!r:.40} for models.", did_you_mean(dtype, DTYPES))
    read = read_models(models)
    root = None if base is None else base if isinstance(base, Model) else read_model(base)
    warnings = compare_models(read[0], read[1:], root)
    aligned = align([*read, *([root] if root else [])], dtype=dtype, common_vocabulary=common_vocabulary)
    return Mixture(
        models=read,
        weights=tuple(weights),
        base=root,
        base_weight=base_weight,
        method=method,
        options=options,
        dtype=dtype,
        common_vocabulary=common_vocabulary,
        alignment=aligned,
        warnings=(*warnings, *aligned.warnings),
    )


def read_models(models: Sequence[Source]) -> tuple[Model, ...]:
    """Read the layouts of models; those in memory are taken as they are."""
    return tuple(parallel(lambda model: model if isinstance(model, Model) else read_model(model), models))


class Reader(Files):
    """Reads and computes the tensors of a mix chunk by chunk, each thread in its own memory."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self._rule, self._shares = RULES[mixture.method], mixture.shares()

    @property
    def looks_first(self) -> bool:
        """Whether a tensor is read whole before any of it is computed, so that it is better not split."""
        return self._rule.whole

    def prepare(self, target: Target) -> Compute:
        """Return what computes the chunks of a tensor."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._rule.prepare(_Open(self, target), self._shares)

    def compute(self, target: Target, rule: Compute, number: int) -> tuple[int, Array]:
        """Return where a chunk of the mix begins, and its elements in the tensor's dtype."""
        start = number * reading.CHUNK
        count = min(reading.CHUNK, target.count - start)
        exact = self.memory.take("exact", count, SINGLE)
        mixed = max(0, min(count, target.common - start))
        if mixed:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
                rule(number, self.inputs(target, number), exact[:mixed])
        if mixed < count:  # rows of the first model alone
            self.read(target.places[0], start + mixed, exact[mixed:], "raw")
        dtype = DTYPES[target.dtype]
        out = exact
        if dtype != SINGLE:
            out = self.memory.take("out", count, dtype)
            narrow(exact, out, rounded=self.memory.take("rounded", count, SINGLE))
        if not all_finite(out):
            raise ModelError(
                f"The mixed tensor {target.name} would hold NaN or infinity in {dtype.name}.",
                "Check the models for such values; if they have none, take --dtype BF16 or F32.",
            )
        return start, out


class _Open:
    """A tensor as rules see it."""

    def __init__(self, reader: Reader, target: Target) -> None:
        self.name, self.common = target.name, target.common
        self._reader, self._target = reader, target

    def chunks(self) -> Iterator[Chunk]:
        for number in range(chunk_count(self.common)):
            yield number, self._reader.inputs(self._target, number)


def mixed_tensor(reader: Reader, target: Target) -> Array:
    """Return a whole tensor of the mix in its dtype and shape; its files must be open."""
    if target.copied:
        raw = np.array(reader.raw(target, 0, target.size))
        return raw.view(DTYPES[target.dtype]).reshape(target.shape)
    whole = np.empty(target.count, DTYPES[target.dtype])
    rule = reader.prepare(target)
    for number in range(chunk_count(target.count)):
        start, chunk = reader.compute(target, rule, number)
        whole[start : start + len(chunk)] = chunk
    return whole.reshape(target.shape)
