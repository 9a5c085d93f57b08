"""Plain sentences about what a mix will be, with their evidence: rules over figures, nothing else.

The sentences speak of weights, and claim nothing about rewards but that they have to be measured:
over the pairs that ``tests/benchmarks/README.md`` tells of, no figure here was found to foretell them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.mixing.effects import Effect
from rsoup.mixing.geometry import PairFacts

PARALLEL = 0.999
"""A cosine from which on two updates are one direction: between them a mix leaves it by at most 2.6 degrees."""
ALIGNED = 0.5
"""A cosine from which on an even mix keeps 87 % of the norm, and below whose opposite it keeps less than half."""
ORTHOGONAL = 0.1
"""A cosine within which two updates are within 6 degrees of a right angle."""
EQUAL = 1.01
"""A ratio of norms within which two parallel updates count as one."""
LOPSIDED = 2.0
"""A ratio of norms from which on the longer update is four fifths of an even mix, by squared norm."""
FAR = 0.1
"""A relative distance from the exact mix from which on it is worth a word."""
SHARED = 0.5
"""The overlap of input directions from which on adapters look as if they began at one A: from others, it is chance."""
_PARALLEL = ("same", "scaled", "no update")


@dataclass(frozen=True)
class Advice:
    """One sentence, what kind it is, and the two ingredients that it is about, if it is about two."""

    kind: str
    text: str
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class Two:
    """Two ingredients of a mix: what they are called, their weights, their figures, whether one start is known.

    ``alone`` where the mix has no third one.
    """

    names: tuple[str, str]
    weights: tuple[float, float]
    facts: PairFacts
    same_start: bool | None = None
    alone: bool = True


def advise(two: Two) -> list[Advice]:
    """Return what there is to say of two ingredients: how they lie to each other, then what follows."""
    facts = two.facts
    if facts.cosine is None or facts.ratio is None:
        return [Advice("no update", f"{_and(two.names)}: one of them changes nothing.", (facts.a, facts.b))]
    kind = relation(facts.cosine, facts.ratio)
    found = [(kind, _relation_text(kind, two))]
    if kind not in _PARALLEL:
        found += _start(two)
    if kind not in _PARALLEL and max(facts.ratio, 1 / facts.ratio) >= LOPSIDED:
        found.append(("lopsided", _lopsided_text(two)))
    return [Advice(kind, text, (facts.a, facts.b)) for kind, text in found]


def relation(cosine: float, ratio: float) -> str:
    """Return how two updates lie to each other, from their cosine and the ratio of their norms."""
    if cosine >= PARALLEL:
        return "same" if max(ratio, 1 / ratio) <= EQUAL else "scaled"
    if cosine >= ALIGNED:
        return "aligned"
    if cosine > ORTHOGONAL:
        return "related"
    if cosine >= -ORTHOGONAL:
        return "orthogonal"
    return "opposed" if cosine <= -ALIGNED else "against"


def advise_methods(effects: Mapping[str, Effect], exact: str) -> list[Advice]:
    """Return what to know of methods that are usable and whose result is far from the exact mix, which one gives."""
    own = effects.get("factors")
    if own is None or own.distance is None or own.distance < FAR or effects[exact].reason:
        return []
    text = f"factors is {own.distance:.0%} of the exact mix's norm away from it; {exact} gives the exact mix."
    return [Advice("factors far", text)]


def advise_all(twos: Sequence[Two], effects: Mapping[str, Effect], exact: str) -> list[Advice]:
    """Return the sentences for every pair, then those for the methods, then what no figure tells."""
    pairs = [advice for two in twos for advice in advise(two)]
    return [*pairs, *advise_methods(effects, exact), *what_is_open(pairs)]


def what_is_open(pairs: Sequence[Advice]) -> list[Advice]:
    """Return what has to be measured of mixes of ingredients that differ by more than their strength."""
    if all(advice.kind in _PARALLEL for advice in pairs):
        return []
    text = "How far the rewards of mixes lie from the line between their ends none of this has been found to foretell"
    return [Advice("measure", f"{text}: measure them (rsoup eval).")]


def advise_kin(two: Two, cosine: float, difference: float) -> list[Advice]:
    """Return what there is to say of two whole models without their base: whether they lie near each other.

    ``cosine`` is that of their matrices, ``difference`` |theta_a - theta_b| / |theta_a| of these.
    """
    both, pair = _and(two.names), (two.facts.a, two.facts.b)
    if difference == 0:
        return [Advice("same", f"{both} hold the same weights: every mix of them is that model.", pair)]
    evidence = f"cosine {cosine:.3f} over their matrices, difference {difference:.1%} of the norm"
    if cosine >= ALIGNED:
        text = f"{both} lie near each other ({evidence}), as models made from one base do; --base BASE compares"
        return [Advice("near", f"{text} what each added to it.", pair)]
    share = kept(cosine, 1.0, (0.5, 0.5))
    text = f"{both} do not lie near each other ({evidence}), as models trained from different starts"
    return [Advice("far", f"{text}: of the norm of their matrices an even mix keeps {share:.0%}.", pair)]


def told_apart(names: Sequence[str]) -> list[str]:
    """Return names that are all different: those that are not get their place."""
    return [name if names.count(name) == 1 else f"{name}#{place}" for place, name in enumerate(names, 1)]


def kept(cosine: float, ratio: float, weights: tuple[float, float]) -> float:
    """Return the norm of a mix of two, of norms 1 and ``ratio``, over the sum of its parts' norms."""
    one, two = weights[0], weights[1] * ratio
    whole = abs(one) + abs(two)
    return math.sqrt(max(0.0, one**2 + two**2 + 2 * one * two * cosine)) / whole if whole else 1.0


def _relation_text(kind: str, two: Two) -> str:
    facts, both = two.facts, _and(two.names)
    assert facts.cosine is not None
    assert facts.ratio is not None
    evidence = f"cosine {_signed(facts.cosine)}" + ("" if facts.chance is None else f", chance {_small(facts.chance)}")
    if kind == "same":
        return f"{both} are the same update ({evidence}): every mix of them is that update."
    if kind == "scaled":
        return (
            f"{two.names[1]} is {two.names[0]} times {facts.ratio:.3g} ({evidence}): mixes of them differ in strength "
            "alone."
        )
    directions = {
        "aligned": "mostly in the same direction",
        "related": "partly in the same direction",
        "orthogonal": "in nearly orthogonal directions",
        "against": "partly against each other",
        "opposed": "in opposite directions",
    }
    signs = "" if facts.signs_by_size is None else f"; {facts.signs_by_size:.0%} of signs agree by size, chance 50%"
    start = "share a start and move" if two.same_start else "move"
    text = f"{both} {start} {directions[kind]} ({evidence}{signs})"
    share = kept(facts.cosine, facts.ratio, two.weights)
    if kind == "opposed" and share < 1:
        return f"{text}: at these weights the mix keeps {share:.0%} of its parts' norm, the rest cancels."
    return f"{text}: at these weights the mix keeps {share:.0%} of its parts' norm."


def _start(two: Two) -> list[tuple[str, str]]:
    facts, both = two.facts, _and(two.names)
    if facts.inputs is None or facts.inputs_chance is None:
        return []
    evidence = f"their input directions overlap by {facts.inputs:.2f} (chance {facts.inputs_chance:.2f})"
    if two.same_start is False:
        return [("different starts", f"{both} began at different adapters; {evidence}.")]
    if two.same_start is None and facts.inputs_chance < SHARED / 2:
        if facts.inputs >= SHARED:
            return [("start likely", f"{both} do not both name their start; {evidence}, as of one start.")]
        return [("different starts likely", f"{both} do not both name their start; {evidence}, as of different ones.")]
    return []


def _lopsided_text(two: Two) -> str:
    ratio = two.facts.ratio or 1.0
    longer, shorter = (two.names[1], two.names[0]) if ratio > 1 else (two.names[0], two.names[1])
    squares = two.weights[0] ** 2, (two.weights[1] * ratio) ** 2
    whole = sum(squares)
    text = f"{longer}'s update is {max(ratio, 1 / ratio):.1f} times as long as {shorter}'s"
    if whole:
        text += f": at these weights it is {squares[ratio > 1] / whole:.0%} of both, by squared norm"
    balance = f"; both count alike at lambda {1 / (1 + ratio):.2g}" if two.alone else ""
    return f"{text}{balance}."


def _small(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) >= PARALLEL else f"{round(value, 2) + 0.0:.2f}"


def _and(names: tuple[str, str]) -> str:
    return " and ".join(names)
