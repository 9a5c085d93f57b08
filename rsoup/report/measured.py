"""What a report is made from: points with their scores, whatever file they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rsoup.evaluation.results import Kind, Samples
from rsoup.pareto.direction import signs_of, turned
from rsoup.pareto.dominance import Floats


@dataclass(frozen=True)
class Model:
    """One measured model: what it is and what it was mixed from or trained on."""

    id: str
    kind: Kind
    weights: Mapping[str, float]  # adapter name -> weight
    lam: float | None = None
    mu: Mapping[str, float] | None = None  # reward name -> weight in training, for a MORL run
    measures: Mapping[str, float] = field(default_factory=dict)  # what was measured beside the rewards

    def alone(self) -> str | None:
        """Return the adapter that this model is, if it is one by itself, of which mixes are made."""
        used = {name: weight for name, weight in self.weights.items() if weight}
        mixed = self.kind not in ("ensemble", "mod", "base")
        return next(iter(used)) if mixed and list(used.values()) == [1.0] else None


@dataclass(frozen=True)
class Spent:
    """What a training took, on average over the seeds of pooled runs."""

    optimizer_steps: float
    tokens: float
    seconds: float | None


@dataclass(frozen=True)
class Source:
    """A file the report was made from, and what it says about itself."""

    path: str
    sha256: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Scores of several models on the same rewards; single scores where the input has them.

    Readers give scores with their own sign; everything that compares takes those of ``as_gains``.
    """

    rewards: tuple[str, ...]
    models: tuple[Model, ...]
    scores: Floats  # (models, rewards)
    sources: tuple[Source, ...]
    samples: Floats | None = None  # (seeds, prompts, models, rewards)
    stderr: Floats | None = None  # (models, rewards), for means that came without samples
    counts: tuple[tuple[int, ...], ...] | None = None  # (models, rewards): scores behind each mean
    experts: Mapping[str, str] = field(default_factory=dict)  # reward name -> name of the adapter trained on it
    adapters: Mapping[str, str] = field(default_factory=dict)  # adapter name -> folder
    starts: Mapping[str, str] = field(default_factory=dict)  # adapter name -> SHA-256 of what it began at
    method: str | None = None
    texts: Samples | None = None
    notes: tuple[str, ...] = ()
    minimized: frozenset[str] = frozenset()  # rewards of which lower scores are better
    fronts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> ids of a front beside the soups'
    spent: Mapping[str, Spent] = field(default_factory=dict)  # adapter name -> what its training took, if known
    bare: frozenset[str] = frozenset()  # rewards known by their means alone, beside others with single scores
    widened: Floats | None = None  # (rewards,): by what samples spread wider than standard errors ask (pareto.missing)
    prompts: int | None = None  # rows of samples that are prompts, if not all are
    documents: Mapping[str, int] = field(default_factory=dict)  # benchmark -> its documents, rows of samples too

    @property
    def signs(self) -> Floats:
        """(rewards,): what turns scores into gains, or gains into scores."""
        return signs_of(self.rewards, self.minimized)

    def as_gains(self) -> Measured:
        """Return the same with all scores better when larger."""
        samples = None if self.samples is None else turned(self.samples, self.signs)
        return replace(self, scores=turned(self.scores, self.signs), samples=samples)

    def rows(self, *kinds: Kind) -> list[int]:
        """Return the rows of the models of these kinds."""
        return [row for row, model in enumerate(self.models) if model.kind in kinds]

    def measures(self) -> list[str]:
        """Return the names of what was measured beside the rewards."""
        return list(dict.fromkeys(name for model in self.models for name in model.measures))

    def corners(self) -> list[int]:
        """Return the rows of the experts of single rewards: each is the MORL run of a corner of the preferences.

        Not of a corner that has a MORL run of its own.
        """
        mus = [model.mu for model in self.models if model.kind == "morl" and model.mu is not None]
        taken = {name for mu in mus for name, weight in mu.items() if weight == 1}
        experts = {adapter for name, adapter in self.experts.items() if name not in taken}
        return [row for row in self.rows("expert") if self.models[row].alone() in experts]

    def trainings(self, rows: Iterable[int]) -> list[str]:
        """Return the adapters that these models are made of; a MORL run without weights is its own."""
        used = (
            name
            for model in (self.models[row] for row in rows)
            for name, weight in (model.weights or ({model.id: 1.0} if model.kind == "morl" else {})).items()
            if weight
        )
        return list(dict.fromkeys(used))

    def ingredients(self) -> dict[str, int]:
        """Return the row of each adapter measured alone, by its name; mixes are made of these."""
        return {name: row for row, model in enumerate(self.models) if (name := model.alone()) is not None}

    def in_order(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return weights in the order in which the models name their adapters, so that one mix has one id."""
        order = {name: None for model in self.models for name in model.weights}
        return {name: weights[name] for name in {**order, **dict.fromkeys(weights)} if name in weights}

    def weights(self, rows: list[int], names: list[str]) -> Floats:
        """Return (rows, names): the weight of each named adapter in these models."""
        return np.array([[self.models[row].weights.get(name, 0.0) for name in names] for row in rows], dtype=float)

    def vector(self, by_reward: Mapping[str, float]) -> Floats:
        """Return one value per reward, 0 where it is not named."""
        return np.array([by_reward.get(name, 0.0) for name in self.rewards], dtype=float)


def weights_id(kind: str, weights: Mapping[str, float]) -> str:
    """Return an id such as soup-0.70-0.30."""
    return "-".join([kind, *(_digits(weight) for weight in weights.values())])


def _digits(weight: float) -> str:
    short = f"{weight:.2f}"
    return short if abs(float(short) - weight) < 1e-9 else f"{weight:.4g}"
