"""Which mix a request asks for: by the model's name, by weights, or by scales as llama.cpp takes them.

base                               the model without adapter
expert:positive                    one adapter
soup:positive=0.7,faithful=0.3     a mix; weights are at least 0 and sum to 1, base=0.2 is a share of no adapter
prefer:positive=0.6,faithful=0.4   the soup that rsoup pareto --prefer finds on half of the prompts for these rewards
soup                               with "weights": {"positive": 0.7, ...} or "lora": [{"id": 0, "scale": 0.7}]
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsoup import mixing
from rsoup.errors import RsoupError, did_you_mean
from rsoup.evaluation.ingredients import BASE
from rsoup.models.rowwise import Mix
from rsoup.serving.errors import RequestError, UnknownModelError

SOUP, EXPERT, PREFER = "soup", "expert", "prefer"
ENOUGH = 1e-6

Preference = Callable[[Mapping[str, float]], Mapping[str, float]]
"""Returns the weights of the soup for a preference over rewards."""


@dataclass(frozen=True)
class Chosen:
    """A mix, and the model's name that says it in full."""

    name: str
    mix: Mix


class Tradeoffs:
    """The mixes of some adapters; with ``extrapolate`` weights may be negative and sum to anything."""

    def __init__(self, names: Sequence[str], rewards: Sequence[str], prefer: Preference, *, extrapolate: bool) -> None:
        self.names, self.rewards, self.extrapolate = tuple(names), tuple(rewards), extrapolate
        self._prefer = prefer

    def listed(self) -> list[str]:
        """Return the names to show to who asks for models."""
        return [BASE, *(f"{EXPERT}:{name}" for name in self.names)]

    def choose(
        self,
        model: str,
        weights: Mapping[str, float] | None = None,
        lora: Sequence[tuple[int, float]] | None = None,
    ) -> Chosen:
        """Return the mix of a request; RequestError if what it asks for is unknown or contradicts itself."""
        kind, colon, rest = model.partition(":")
        told = weights is not None or lora is not None
        if model == SOUP and told:
            return self._given(weights, lora)
        if model == SOUP:
            raise RequestError(
                "The model soup needs weights.",
                f'Send "weights": {self._example()}.',
                param="weights",
                code="no_weights",
            )
        found = self.of({BASE: 1.0}) if model == BASE else self._named(kind, rest) if colon else None
        if found is None:
            hint = did_you_mean(model, [*self.listed(), SOUP])
            forms = f"{SOUP}:NAME=WEIGHT,... and {PREFER}:REWARD=WEIGHT,... are models too."
            raise UnknownModelError(f"The model {model!r:.100} does not exist.", f"{hint} {forms}")
        if told:
            raise RequestError(
                f"The model {model!r:.100} and weights are two answers to one question.",
                f"Give weights with the model {SOUP}, or leave them out.",
                param="weights" if weights is not None else "lora",
            )
        return found

    def _named(self, kind: str, rest: str) -> Chosen | None:
        """Return the mix of a name, None if there is no such model."""
        if kind == EXPERT and rest in self.names:
            return self.of({rest: 1.0})
        if kind == SOUP:
            return self.of(read_pairs(rest))
        if kind == PREFER:
            return self.of(self._preferred(read_pairs(rest)), measured=True)
        return None

    def _given(self, weights: Mapping[str, float] | None, lora: Sequence[tuple[int, float]] | None) -> Chosen:
        if weights is not None and lora is not None:
            raise RequestError("Both weights and lora are given.", "Give one of them.", param="lora")
        if weights is not None:
            return self.of(weights, param="weights")
        by_name: dict[str, float] = {}
        for place, scale in lora or ():
            if not 0 <= place < len(self.names):
                known = ", ".join(f"{number} {name}" for number, name in enumerate(self.names)) or "none"
                raise RequestError(f"There is no adapter with the id {place}.", f"Known: {known}.", param="lora")
            if self.names[place] in by_name:
                raise RequestError(f"The adapter {place} is given twice.", "Give each id once.", param="lora")
            by_name[self.names[place]] = scale
        rest = 1 - _total(by_name)
        return self.of({**by_name, **({BASE: rest} if abs(rest) > ENOUGH else {})}, param="lora")

    def _preferred(self, mu: Mapping[str, float]) -> Mapping[str, float]:
        for name in mu:
            if self.rewards and name not in self.rewards:
                hint = did_you_mean(name, self.rewards)
                raise RequestError(f"{name!r:.100} is no reward of this run.", hint, param="model")
        if min(mu.values()) < 0 or abs(_total(mu) - 1) > ENOUGH:
            raise RequestError(
                f"The preference {_written(mu)} is not of weights of at least 0 that sum to 1.",
                "Give shares of 1.",
                param="model",
                code="bad_weights",
            )
        return self._prefer(mu)

    def of(self, by_name: Mapping[str, float], *, param: str = "model", measured: bool = False) -> Chosen:
        """Return the mix of these weights; those of a soup that was ``measured`` may be any."""
        for name in by_name:
            if name not in (*self.names, BASE):
                raise RequestError(
                    f"There is no adapter {name!r:.100} here.", did_you_mean(name, [*self.names, BASE]), param=param
                )
        weights, base = tuple(float(by_name.get(name, 0.0)) for name in self.names), float(by_name.get(BASE, 0.0))
        if base == 1 and not any(weights):
            return Chosen(BASE, Mix(weights, 1.0))
        try:
            mixing.check_weights(weights, len(weights), base, extrapolate=self.extrapolate or measured)
        except RsoupError as problem:
            hint = (
                f"Give weights of at least 0 that sum to 1, as in {self._example()}; {BASE} is the share of no adapter."
            )
            raise RequestError(_fault(by_name), hint, param=param, code="bad_weights") from problem
        used = {name: weight for name, weight in zip((*self.names, BASE), (*weights, base), strict=True) if weight}
        if list(used.values()) == [1.0]:
            return Chosen(f"{EXPERT}:{next(iter(used))}", Mix(weights))
        return Chosen(f"{SOUP}:{_written(used)}", Mix(weights, base))

    def _example(self) -> str:
        return json.dumps(dict(zip((*self.names, BASE), (0.7, 0.3), strict=False)))


def _fault(weights: Mapping[str, float]) -> str:
    """Return what is wrong with weights that cannot be mixed with."""
    if any(weight < 0 for weight in weights.values()):
        return f"The weights {_written(weights)} include a negative one."
    total = _total(weights)
    return f"The weights {_written(weights) or '(none)'} sum to {total:g}, not to 1."


def _total(weights: Mapping[str, float]) -> float:
    """Return the sum of weights, infinite where it is beyond floating-point numbers."""
    try:
        return math.fsum(weights.values())
    except OverflowError:
        return math.inf


def _written(weights: Mapping[str, float]) -> str:
    return ",".join(f"{name}={weight:.10g}" for name, weight in weights.items())


def read_pairs(text: str) -> dict[str, float]:
    """Return {"positive": 0.7, "faithful": 0.3} for positive=0.7,faithful=0.3."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.rpartition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise RequestError(
                f"{part!r:.100} is not NAME=WEIGHT.", "Write the model as soup:NAME=0.7,OTHER=0.3.", param="model"
            )
        if name in found:
            raise RequestError(f"{name!r:.100} is given twice.", "Give each name once.", param="model")
        found[name] = number
    return found
