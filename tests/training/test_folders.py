"""What baselines are called, and which a sweep has."""

from __future__ import annotations

import pytest

from rsoup.training.folders import inner_weights, morl_name


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ({"positive": 0.4, "faithful": 0.6}, "morl-0.40-0.60"),
        ({"faithful": 1.0}, "morl-0.00-1.00"),
        ({"positive": 0.125, "faithful": 0.875}, "morl-0.125-0.875"),
        ({"positive": 1.0, "faithful": 3.0}, "morl-1.00-3.00"),
    ],
)
def test_a_baseline_is_named_after_its_weights(weights: dict[str, float], name: str) -> None:
    assert morl_name(weights, {"positive": {}, "faithful": {}}) == name


def test_every_inner_weighting_is_swept() -> None:
    assert inner_weights(["a", "b"], 4) == [{"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}]
    assert len(inner_weights(["a", "b", "c"], 3)) == 7
