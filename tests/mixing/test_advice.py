"""The sentences, and what they are said of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rsoup.mixing.advice import Two, advise, advise_all, advise_kin, advise_methods, kept, told_apart
from rsoup.mixing.effects import Effect, refused
from rsoup.mixing.geometry import PairFacts


def facts(cosine: float | None, ratio: float | None = 1.0, **known: Any) -> PairFacts:
    unknown = dict.fromkeys(PairFacts.__dataclass_fields__)
    return PairFacts(**{**unknown, "a": 0, "b": 1, "cosine": cosine, "ratio": ratio, **known})


def two(cosine: float | None, ratio: float | None = 1.0, start: bool | None = True, **known: Any) -> Two:
    weights = known.pop("weights", (0.5, 0.5))
    return Two(("A", "B"), weights, facts(cosine, ratio, **known), start)


UNKNOWN = {"inputs": 0.9, "inputs_chance": 0.01}
OTHERS = {"inputs": 0.02, "inputs_chance": 0.01}

SAID = [
    (two(1.0), ["same"], "A and B are the same update (cosine 1.000): every mix of them is that update."),
    (two(0.9995, 1.005), ["same"], "the same update"),
    (two(1.0, 3.0), ["scaled"], "B is A times 3 (cosine 1.000)"),
    (two(0.998), ["aligned"], "mostly in the same direction (cosine 1.00)"),
    (two(0.5), ["aligned"], "keeps 87% of its parts' norm"),
    (two(0.3), ["related"], "partly in the same direction"),
    (two(0.1), ["orthogonal"], "share a start and move in nearly orthogonal directions (cosine 0.10)"),
    (two(-0.03, cosine_chance=0.001, cosine_chance_inputs=0.02), ["orthogonal"], "(cosine -0.03, chance 0.02)"),
    (two(0.0, signs_by_size=0.514), ["orthogonal"], "51% of signs agree by size, chance 50%"),
    (two(-0.2), ["against"], "partly against each other"),
    (two(-0.5), ["opposed"], "keeps 50% of its parts' norm, the rest cancels"),
    (two(-1.0), ["opposed"], "keeps 0% of its parts' norm"),
    (two(-1.0, weights=(1.5, -0.5)), ["opposed"], "keeps 100% of its parts' norm"),
    (two(0.0, 2.0), ["orthogonal", "lopsided"], "2.0 times as long as A's: at these weights it is 80% of both"),
    (two(0.0, 0.25), ["orthogonal", "lopsided"], "A's update is 4.0 times as long as B's"),
    (two(0.0, 0.25), ["orthogonal", "lopsided"], "both count alike at lambda 0.8"),
    (two(0.0, 1.9), ["orthogonal"], "A and B"),
    (two(0.0, start=False, **OTHERS), ["orthogonal", "different starts"], "overlap by 0.02 (chance 0.01)"),
    (two(0.0, start=None, **OTHERS), ["orthogonal", "different starts likely"], "as of different ones"),
    (two(0.0, start=None, **UNKNOWN), ["orthogonal", "start likely"], "as of one start"),
    (two(0.0, start=None, inputs=0.9, inputs_chance=0.6), ["orthogonal"], "A and B move"),  # chance says as much
    (two(None, None), ["no update"], "one of them changes nothing"),
]


@pytest.mark.parametrize(("case", "kinds", "words"), SAID)
def test_a_pair_is_told_with_its_evidence(case: Two, kinds: list[str], words: str) -> None:
    found = advise(case)
    assert [advice.kind for advice in found] == kinds
    assert any(words in advice.text for advice in found)
    assert all(advice.pair == (0, 1) and advice.text.endswith(".") for advice in found)


def test_of_rewards_nothing_is_said_but_that_they_have_to_be_measured() -> None:
    """Figures of weights do not tell them; see tests/benchmarks/README.md."""
    for case, kinds, _ in SAID:
        found = advise_all([case], {}, "cat")
        speaking = [advice.kind for advice in found if "reward" in advice.text or "score" in advice.text]
        assert speaking == ([] if set(kinds) & {"same", "scaled", "no update"} else ["measure"])


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (1.5, -0.5), (0.0, 1.0)])
def test_the_norm_kept_is_that_of_the_sum(weights: tuple[float, float]) -> None:
    one, other = np.array([1.0, 0.0]), 2.0 * np.array([math.cos(2.0), math.sin(2.0)])
    parts = [weights[0] * one, weights[1] * other]
    expected = np.linalg.norm(sum(parts)) / sum(np.linalg.norm(part) for part in parts)
    assert kept(math.cos(2.0), 2.0, weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("own", "exact", "said"),
    [
        (Effect(0.1, 1.0), Effect(0.0, 1.0), "factors is 10% of the exact mix's norm away from it; cat gives"),
        (Effect(0.09, 1.0), Effect(0.0, 1.0), ""),
        (Effect(None, None), Effect(0.0, 1.0), ""),
        (refused("ranks differ"), Effect(0.0, 1.0), ""),
        (Effect(0.5, 1.0), refused("no"), ""),
    ],
)
def test_factors_far_from_the_exact_mix_are_told_where_there_is_a_better_way(
    own: Effect, exact: Effect, said: str
) -> None:
    found = advise_methods({"factors": own, "cat": exact}, "cat")
    assert [advice.kind for advice in found] == (["factors far"] if said else [])
    assert all(said in advice.text for advice in found)
    assert advise_all([], {"factors": own, "cat": exact}, "cat") == found


@pytest.mark.parametrize(
    ("cosine", "difference", "kind", "words"),
    [
        (1.0, 0.0, "same", "hold the same weights"),
        (0.998, 0.06, "near", "cosine 0.998 over their matrices, difference 6.0% of the norm"),
        (0.02, 1.4, "far", "an even mix keeps 71%"),
    ],
)
def test_models_are_near_each_other_or_not(cosine: float, difference: float, kind: str, words: str) -> None:
    [advice] = advise_kin(two(cosine), cosine, difference)
    assert advice.kind == kind
    assert words in advice.text


def test_equal_names_get_their_place() -> None:
    assert told_apart(["a", "b", "a"]) == ["a#1", "b", "a#3"]
