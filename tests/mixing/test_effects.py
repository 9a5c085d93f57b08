"""What ``check`` says of each method is what ``mix`` writes, beside the exact mix of full matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsoup import mixing
from rsoup.adapters import Layer
from rsoup.errors import AdapterError
from rsoup.mixing import effects
from rsoup.mixing.effects import LARGEST, LIMIT, tried_modules, try_method
from rsoup.mixing.methods import Ingredients, Options
from rsoup.mixing.updates import Part, gram

from .making import SHAPES, make_adapter, update_of


@pytest.mark.parametrize("method", mixing.METHODS)
@pytest.mark.parametrize("weights", [[0.3, 0.7], [0.5, -0.2], [0.0, 1.0]])
def test_an_effect_is_that_of_the_mix(method: str, weights: list[float], tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(i), i) for i in range(2)]
    options = Options(density=0.4, rank=1, seed=3)
    takes = {"svd": Options(rank=1), "slerp": Options(rank=1), "ties": Options(1, None, 0.4), "dare": options}
    own = takes.get(method, Options())
    report = mixing.check(paths, weights, options=options, base_weight=0.1)
    mixed = mixing.mix(paths, weights, method=method, options=own, base_weight=0.1, allow_extrapolation=True).adapter
    ends = [mixing.read(path) for path in paths]
    exact = [sum(w * update_of(end, name) for end, w in zip(ends, weights, strict=True)) for name in SHAPES]
    found = [update_of(mixed, name) for name in SHAPES]
    lengths = [np.sqrt(sum(np.linalg.norm(own) ** 2 for own in whole)) for whole in (exact, found)]
    apart = np.sqrt(sum(np.linalg.norm(a - b) ** 2 for a, b in zip(exact, found, strict=True)))
    effect = report.effects[method]
    assert effect.distance == pytest.approx(apart / lengths[0], rel=1e-3, abs=1e-5)
    assert effect.norm == pytest.approx(lengths[1] / lengths[0], rel=1e-3)
    assert effect.layers == len(SHAPES)
    assert effect.dropped == (pytest.approx(0.6) if method in effects.DENSE else None)


def test_conflicts_are_counted_by_hand() -> None:
    """Of a row (4, -3, 2, 1) and one (5, 6, -1, 0.5) two entries each are kept: at the second they are opposed."""
    rows = [[4.0, -3.0, 2.0, 1.0], [5.0, 6.0, -1.0, 0.5]]
    layers = [Layer("linear", np.array([row], np.float32), np.ones((1, 1), np.float32), 1.0) for row in rows]
    of = Ingredients([Part(own, 0.5) for own in layers], 1.0, 0.0, Options(density=0.5))
    trial = try_method("ties", of, gram(layers))
    assert not isinstance(trial, AdapterError)
    assert (trial.kept, trial.conflicts) == (2, 1)
    # Elected: (4 + 5) / 2 at the first, 6 alone at the second, of an exact mix (4.5, 1.5, 0.5, 0.75).
    assert trial.mixed == pytest.approx(4.5**2 + 6**2)
    assert trial.error == pytest.approx(4.5**2 + 0.5**2 + 0.75**2)


def test_what_cannot_be_tried_says_why_and_where(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a")
    opposite = mixing.mix([path], [-1.0], method="cat", allow_extrapolation=True).adapter
    report = mixing.check([path, opposite])
    assert report.methods["slerp"] is None
    assert "_proj: Under slerp, updates that point in opposite directions" in str(report.effects["slerp"].reason)
    assert report.effects["dare"].distance is None  # relative to an exact mix that is zero
    assert report.effects["cat"].distance == 0


def test_full_matrices_are_tried_on_modules_of_every_kind() -> None:
    sizes = {f"layers.{i}.{kind}": LIMIT // 16 for i in range(64) for kind in ("q_proj", "up_proj", "down_proj")}
    chosen = tried_modules(sizes)
    assert sum(sizes[name] for name in chosen) <= LIMIT
    assert {name.rpartition(".")[2] for name in chosen} == {"q_proj", "up_proj", "down_proj"}
    assert tried_modules({"a.x": LIMIT * 2, "b.x": LARGEST + 1}) == ["a.x"]
    assert tried_modules({"b.x": LARGEST + 1}) == []
    small = {"a.x": 10, "b.x": 20}
    assert tried_modules(small) == ["a.x", "b.x"]


def test_modules_too_large_to_try_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "LARGEST", 8)
    report = mixing.check([make_adapter(tmp_path / str(i), i) for i in range(2)])
    assert report.effects["ties"].reason == "every module is too large to be tried"
    assert report.effects["svd"].distance is not None
