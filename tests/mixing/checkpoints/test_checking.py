"""What there is to know of models before they are mixed, beside float64 sums over whole tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.errors import ModelError
from rsoup.mixing import Options
from rsoup.mixing.checkpoints import RULES, check_models, checking, mix_models, reading, write_model

from .models import Q_PROJ, load, make_model, tensors


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 8)


def models(folder: Path, **config: Any) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write two models near one base; return their folders and tensors."""
    base = tensors(0)
    contents = {"base": base}
    for seed, name in enumerate(("one", "two"), 1):
        contents[name] = {key: value + 0.1 * tensors(seed)[key] for key, value in base.items()}
    return {name: make_model(folder / name, own, **config) for name, own in contents.items()}, contents


def flat(content: Any) -> Any:
    return np.concatenate([content[name].astype(np.float64).ravel() for name in sorted(content)])


def test_differences_from_a_base_are_compared(tmp_path: Path) -> None:
    paths, contents = models(tmp_path)
    mixture = mix_models([paths["one"], paths["two"]], [0.3, 0.7], base=paths["base"], method="task_arithmetic")
    report = check_models(mixture)
    one, two = (flat(contents[name]) - flat(contents["base"]) for name in ("one", "two"))
    [pair] = report.pairs
    assert pair.cosine == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), rel=1e-4)
    assert pair.signs == pytest.approx(np.mean(one * two > 0))
    assert pair.outputs is None
    assert report.norms == pytest.approx([np.linalg.norm(one), np.linalg.norm(two)], rel=1e-5)
    far = np.linalg.norm(flat(contents["one"]) - flat(contents["two"])) / np.linalg.norm(flat(contents["one"]))
    assert report.difference == pytest.approx(far, rel=1e-2)
    assert (report.compared, report.seen, len(report.layers)) == ("differences", 1.0, 5)
    assert [advice.kind for advice in report.advice] in (
        [kind, "measure"] for kind in ("orthogonal", "related", "against")
    )


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp", "linear"])
def test_an_effect_is_that_of_the_written_mix(method: str, tmp_path: Path) -> None:
    paths, contents = models(tmp_path)
    needs = RULES[method].base == "needed"
    own = {"base": paths["base"]} if needs else {}
    options = Options(density=0.3) if method == "ties" else Options()
    mixture = mix_models([paths["one"], paths["two"]], [0.3, 0.7], method=method, options=options, **own)
    effect = check_models(mixture).effects[method]
    mixed = flat(load(write_model(mixture, tmp_path / "out")))
    exact = 0.3 * flat(contents["one"]) + 0.7 * flat(contents["two"])
    origin = flat(contents["base"]) if needs else 0.0
    whole = exact - origin if needs else flat(contents["one"]) - flat(contents["two"])
    assert effect.distance == pytest.approx(np.linalg.norm(mixed - exact) / np.linalg.norm(whole), rel=1e-3, abs=1e-5)
    assert effect.norm == pytest.approx(np.linalg.norm(mixed - origin) / np.linalg.norm(exact - origin), rel=1e-3)
    assert effect.dropped == (0.7 if method == "ties" else None)


def test_methods_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    paths, _ = models(tmp_path)
    effects = check_models(mix_models([paths["one"], paths["two"]], [0.5, 0.5])).effects
    assert "mixes differences from a base" in str(effects["ties"].reason)
    assert effects["linear"].distance == pytest.approx(0, abs=1e-5)
    same = [paths["one"], paths["two"]]
    effects = check_models(mix_models(same, [0.5, 0.5], base=paths["base"], method="dare")).effects
    assert "takes no base" in str(effects["slerp"].reason)
    assert 0.2 < (effects["dare"].distance or 0) < 2


def test_models_of_one_origin_and_of_two_are_told_apart(tmp_path: Path) -> None:
    paths, _ = models(tmp_path)
    other = make_model(tmp_path / "other", 9)
    kinds = {
        name: [advice.kind for advice in check_models(mix_models([paths["one"], path], [0.5, 0.5])).advice]
        for name, path in (("two", paths["two"]), ("other", other), ("one", paths["one"]))
    }
    assert kinds == {"two": ["near", "measure"], "other": ["far", "measure"], "one": ["same"]}


def test_a_sample_stands_for_large_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"model.layers.0.mlp.up_proj.weight": (80, 80), "model.norm.weight": (5,)}
    base, one, two = (tensors(seed, shapes=shapes) for seed in range(3))
    paths = [
        make_model(tmp_path / str(place), own)
        for place, own in enumerate(({key: value + one[key] for key, value in base.items()}, two, base))
    ]
    mixture = mix_models(paths[:2], [0.5, 0.5], base=paths[2], method="ties")
    whole = check_models(mixture)
    monkeypatch.setattr(checking, "SEEN", 1600)
    some = check_models(mixture)
    assert whole.seen == 1.0
    assert some.seen == pytest.approx(0.25, abs=0.01)
    assert some.pairs[0].cosine == pytest.approx(whole.pairs[0].cosine, abs=0.05)
    assert some.effects["ties"].distance == pytest.approx(whole.effects["ties"].distance, rel=0.1)
    assert len(some.layers) == 2


def test_values_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    content = tensors(1)
    content[Q_PROJ][0, 0] = np.nan
    broken = make_model(tmp_path / "broken", content)
    mixture = mix_models([make_model(tmp_path / "one", 0), broken], [0.5, 0.5])
    with pytest.raises(ModelError, match=f"{Q_PROJ} holds NaN"):
        check_models(mixture)


def test_the_report_is_json(tmp_path: Path) -> None:
    paths, _ = models(tmp_path)
    report = check_models(mix_models([paths["one"], paths["one"]], [0.5, 0.5], base=paths["one"], method="ties"))
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["pairs"][0]["cosine"] is None  # neither adds anything
    assert [advice["kind"] for advice in content["advice"]] == ["no update"]
