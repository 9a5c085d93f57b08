"""Compare whole models before they are mixed, over a sample of their weights, in little memory.

With a base, what each model adds to it is compared, delta_i = theta_i - theta_0; without one, the models themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rsoup.adapters.tensorfile import Array
from rsoup.errors import AdapterError, ModelError
from rsoup.mixing.advice import Advice, Two, advise, advise_kin, told_apart, what_is_open
from rsoup.mixing.checkpoints import reading
from rsoup.mixing.checkpoints.alignment import Target
from rsoup.mixing.checkpoints.mixture import Mixture
from rsoup.mixing.checkpoints.reading import Files, chunk_count
from rsoup.mixing.checkpoints.rules import RULES, Chunk, Shares, check_rule
from rsoup.mixing.chunks import THREADS
from rsoup.mixing.effects import DENSE, Effect, Trial, effect, refused
from rsoup.mixing.geometry import Geometry, PairFacts
from rsoup.mixing.parallel import parallel

SEEN = 1 << 26
"""Elements of a model that are looked at, all together: of each tensor the same share, in evenly spaced chunks."""


@dataclass(frozen=True)
class TensorFacts:
    """One tensor: the norms of what is compared, and the pairs."""

    tensor: str
    norms: list[float]
    pairs: list[PairFacts]


@dataclass(frozen=True)
class ModelsReport:
    """What there is to know before models are mixed.

    ``compared`` is "differences" (from the base) or "models"; ``norms``, ``pairs`` and ``layers`` are of these.
    ``distance`` of an effect is relative to the exact mix of the differences, sum_i w_i delta_i, or without a base to
    the largest distance of two models. ``difference`` is |theta_a - theta_b| / |theta_a| of the pair furthest apart.
    ``seen`` is the share of the elements that were looked at; norms are of these.
    """

    compared: str
    weights: list[float]
    norms: list[float]
    pairs: list[PairFacts]
    difference: float | None
    effects: dict[str, Effect]
    seen: float | None
    layers: list[TensorFacts]
    advice: list[Advice]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON content."""
        return dataclasses.asdict(self)


def check_models(mixture: Mixture) -> ModelsReport:
    """Compare the models of a mix at its weights; the methods are tried on what is looked at of each tensor.

    Raise ModelError where a model holds NaN or infinity.
    """
    targets = [target for target in mixture.alignment.targets if not target.copied and target.common]
    whole = sum(target.common for target in targets)
    share = min(1.0, SEEN / max(1, whole))
    reasons = {method: _reason(mixture, method) for method in RULES}
    usable = [method for method, reason in reasons.items() if reason is None]
    with Files() as files:
        files.open(targets)

        def study(target: Target) -> _Studied:
            return _study(_Sample(files, target, share), mixture, usable)

        found = parallel(study, targets, at_most=THREADS)
    count = len(mixture.models)
    everything = sum((own.geometry for own in found), Geometry.zero(count))
    matrices = sum((own.models for own in found if own.is_matrix), np.zeros((count, count)))
    return ModelsReport(
        compared="differences" if mixture.base else "models",
        weights=list(mixture.weights),
        norms=everything.norms,
        pairs=everything.pairs,
        difference=_difference(sum((own.models for own in found), np.zeros((count, count)))),
        effects={method: _effect(mixture, method, reason, found) for method, reason in reasons.items()},
        seen=sum(own.seen for own in found) / whole if whole else None,
        layers=[TensorFacts(own.name, own.geometry.norms, own.geometry.pairs) for own in found],
        advice=_advice(mixture, everything, matrices),
    )


class _Sample:
    """What is looked at of a tensor, as rules see it: evenly spaced chunks of all ingredients."""

    def __init__(self, files: Files, target: Target, share: float) -> None:
        self.name, self._files, self._target = target.name, files, target
        self.is_matrix = len(target.shape) > 1
        chunks = chunk_count(target.common)
        wanted = min(chunks, max(1, round(chunks * share)))
        self._numbers = [chunks * place // wanted for place in range(wanted)]
        self.common = sum(min(reading.CHUNK, target.common - number * reading.CHUNK) for number in self._numbers)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks, numbered anew."""
        for place, number in enumerate(self._numbers):
            yield place, self._files.inputs(self._target, number)


class _Studied(NamedTuple):
    """One tensor: the sums over what is compared, the models' own inner products, and what each method makes of it."""

    name: str
    is_matrix: bool
    seen: int
    geometry: Geometry
    models: Array
    trials: Mapping[str, Trial | AdapterError]


def _study(sample: _Sample, mixture: Mixture, methods: Sequence[str]) -> _Studied:
    count, has_base = len(mixture.models), mixture.base is not None
    found, models = Geometry.zero(count), np.zeros((count, count))
    for _, arrays in sample.chunks():
        own = np.stack([array.astype(np.float64) for array in arrays])
        models += own[:count] @ own[:count].T
        entries = own[:count] - own[-1] if has_base else own
        signs, sizes = np.sign(entries), np.abs(entries)
        found.products[...] += entries @ entries.T
        found.signs[...] += signs @ signs.T
        found.both[...] += np.abs(signs) @ np.abs(signs).T
        found.size[...] += sizes @ sizes.T
    if not np.isfinite(models).all():
        raise ModelError(f"{sample.name} holds NaN or infinity.", "Check the models for such values.")
    found.signed_size[...] = found.products
    squares = np.diag(found.products)
    found.turned[...] = np.outer(squares, squares) / sample.common
    trials = {method: _try(method, sample, mixture) for method in methods}
    return _Studied(sample.name, sample.is_matrix, sample.common, found, models, trials)


def _try(method: str, sample: _Sample, mixture: Mixture) -> Trial | AdapterError:
    """Mix what is looked at of a tensor, beside the exact mix."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            rule = RULES[method].prepare(sample, _shares(mixture, method))
            sums = [_compare(rule, number, arrays, mixture) for number, arrays in sample.chunks()]
    except AdapterError as problem:
        return problem
    return Trial(*(math.fsum(column) for column in zip(*sums, strict=True)))


def _compare(rule: Any, number: int, arrays: Sequence[Array], mixture: Mixture) -> tuple[float, float, float]:
    """Return the squared norms of the exact mix, of a method's, and of their difference, all from the base if any."""
    base = arrays[-1].astype(np.float64) if mixture.base is not None else np.zeros(len(arrays[0]))
    exact = np.zeros_like(base)
    for array, weight in zip(arrays, mixture.weights, strict=False):
        exact += weight * (array - base)
    mixed = np.empty(len(base), np.float32)
    rule(number, arrays, mixed)
    change = mixed - base
    error = change - exact
    return float(exact @ exact), float(change @ change), float(error @ error)


def _reason(mixture: Mixture, method: str) -> str | None:
    """Return why a method cannot be used with what is given, or None."""
    own = _options(mixture, method)
    try:
        check_rule(method, own, has_base=mixture.base is not None, base_weight=mixture.base_weight)
    except AdapterError as problem:
        return problem.message
    return None


def _options(mixture: Mixture, method: str) -> Any:
    return mixture.options if method in DENSE else dataclasses.replace(mixture.options, density=None)


def _shares(mixture: Mixture, method: str) -> Shares:
    """Return the shares of a trial; which entries dare drops differs from the mix, how many does not."""
    keys = tuple(map(str, range(len(mixture.models))))
    options = _options(mixture, method)
    return Shares(mixture.weights, mixture.base_weight, mixture.base is not None, options, keys)


def _effect(mixture: Mixture, method: str, reason: str | None, found: Sequence[_Studied]) -> Effect:
    if reason is not None:
        return refused(reason)
    own = effect(method, [studied.trials[method] for studied in found], _shares(mixture, method).density)
    own = dataclasses.replace(own, conflicts=None)
    if mixture.base is not None or own.distance is None:
        return own
    count = len(mixture.models)
    apart = _squared_distances(sum((studied.models for studied in found), np.zeros((count, count)))).max()
    trials = [studied.trials[method] for studied in found]
    error = math.fsum(trial.error for trial in trials if isinstance(trial, Trial))
    return dataclasses.replace(own, distance=math.sqrt(error / apart) if apart else None)


def _squared_distances(products: Array) -> Array:
    squares = np.diag(products)
    distances: Array = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    return distances


def _difference(products: Array) -> float | None:
    """Return |theta_a - theta_b| / |theta_a| of the pair furthest apart."""
    distances = _squared_distances(products)
    first, _ = np.unravel_index(int(distances.argmax()), distances.shape)
    return math.sqrt(distances.max() / products[first, first]) if products[first, first] else None


def _advice(mixture: Mixture, everything: Geometry, matrices: Array) -> list[Advice]:
    names = told_apart([model.name for model in mixture.models])
    found: list[Advice] = []
    for facts in everything.pairs:
        a, b = facts.a, facts.b
        two = Two((names[a], names[b]), (mixture.weights[a], mixture.weights[b]), facts, alone=len(names) == 2)
        if mixture.base is not None:
            found += advise(two)
            continue
        sizes = float(matrices[a, a]), float(matrices[b, b])
        distance = math.sqrt(_squared_distances(matrices)[a, b])
        if all(sizes):
            cosine = float(matrices[a, b]) / math.sqrt(sizes[0] * sizes[1])
            found += advise_kin(two, cosine, distance / math.sqrt(sizes[0]))
    return [*found, *what_is_open(found)]
