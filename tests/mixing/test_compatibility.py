from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup import mixing
from rsoup.errors import AdapterError

from .making import SHAPES, make_adapter, update_of

START, OTHER_START = "a" * 64, "b" * 64


def born(start: str | None = START, base: str = "tiny", base_sha256: str | None = "c" * 64) -> dict[str, Any]:
    return {"base_model": {"name": base, "sha256": base_sha256}, "init_sha256": start}


def test_one_base_and_one_start_leave_nothing_to_say(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(i), i, provenance=born()) for i in range(2)]
    assert mixing.mix(paths, [0.5, 0.5]).warnings == ()


def test_different_starts_are_refused_unless_allowed(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / s, provenance=born(s)) for s in (START, OTHER_START)]
    with pytest.raises(AdapterError, match="started from different adapters") as caught:
        mixing.mix(paths, [0.5, 0.5])
    assert "--allow-different-starts" in caught.value.hint
    assert mixing.mix(paths, [0.5, 0.5], allow_different_starts=True).adapter.layers


def test_an_unknown_start_is_a_warning(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "a", provenance=born()), make_adapter(tmp_path / "b")]
    [warning] = mixing.mix(paths, [0.5, 0.5]).warnings
    assert str(tmp_path / "b") in warning
    assert "could not be verified" in warning
    more = [make_adapter(tmp_path / "c"), *paths]
    [warning] = mixing.mix(more, [0.2, 0.3, 0.5]).warnings
    assert warning.startswith(f"{tmp_path / 'c'} and {tmp_path / 'b'} have no rsoup.json with a start")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"provenance": born(base_sha256="1" * 64)}, {"provenance": born(base_sha256="2" * 64)}),
        ({"provenance": born(base="one", base_sha256=None)}, {"provenance": born(base="two")}),
        ({"base_model_name_or_path": "one"}, {"base_model_name_or_path": "two"}),
    ],
)
def test_different_bases_are_refused(one: dict[str, Any], other: dict[str, Any], tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "a", **one), make_adapter(tmp_path / "b", **other)]
    with pytest.raises(AdapterError, match="was trained on"):
        mixing.mix(paths, [0.5, 0.5])


def test_the_same_weights_under_two_names_are_one_base(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / base, provenance=born(base=base)) for base in ("here", "there")]
    assert mixing.mix(paths, [0.5, 0.5]).warnings == ()


def test_revisions_of_one_base_that_differ_are_told(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / name, revision=own) for name, own in (("a", None), ("b", "main"), ("c", "v2"))]
    assert not [told for told in mixing.mix(paths[:2], [0.5, 0.5]).warnings if "on the revision" in told]
    told = f"{paths[2]} was trained on the revision v2 of tiny, {paths[0]} on main"
    assert [warning for warning in mixing.mix([paths[0], paths[2]], [0.5, 0.5]).warnings if told in warning]


def test_an_unnamed_base_is_a_warning(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b", base_model_name_or_path=None)]
    assert any("does not name its base" in warning for warning in mixing.mix(paths, [0.5, 0.5]).warnings)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rank": 3}, "has rank 3, .* rank 2"),
        ({"alpha": 8}, r"scales .* by 4, .* by 2"),
        ({"use_rslora": True}, "scales"),
        ({"shapes": dict(list(SHAPES.items())[:1])}, "does not"),
    ],
)
def test_factors_needs_the_same_ranks_scales_and_modules(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b", 1, **other)]
    with pytest.raises(AdapterError, match=message) as caught:
        mixing.mix(paths, [0.5, 0.5])
    assert "--method cat (rsoup mix: or svd)" in caught.value.hint
    assert mixing.mix(paths, [0.5, 0.5], method="cat").adapter.layers


def test_shapes_of_two_bases_are_refused(tmp_path: Path) -> None:
    paths = [
        make_adapter(tmp_path / "a"),
        make_adapter(tmp_path / "b", shapes={"model.layers.0.mlp.down_proj": (4, 8)}),
    ]
    with pytest.raises(AdapterError, match=r"with shape \(4, 8\), .* with \(4, 7\)"):
        mixing.mix(paths, [0.5, 0.5], method="cat")


def test_every_pair_is_checked_not_only_those_with_the_first(tmp_path: Path) -> None:
    """The first adapter says nothing of its base or start, and leaves alone what the others update."""
    first = make_adapter(tmp_path / "first", shapes={"k_proj": (2, 2)}, base_model_name_or_path=None)
    others = [make_adapter(tmp_path / s, provenance=born(s, base_sha256=None)) for s in (START, OTHER_START)]
    with pytest.raises(AdapterError, match="started from"):
        mixing.mix([first, *others], [0.2, 0.4, 0.4], method="cat")
    shapes = [make_adapter(tmp_path / f"shape{n}", shapes={"q_proj": (n, 3)}) for n in (2, 4)]
    with pytest.raises(AdapterError, match=r"with shape \(4, 3\)"):
        mixing.mix([first, *shapes], [0.2, 0.4, 0.4], method="cat")


def saved(value: float, shape: tuple[int, ...] = (2, 3)) -> dict[str, Any]:
    return {"extra": {"base_model.model.score.weight": np.full(shape, value, np.float32)}, "modules_to_save": ["score"]}


def test_modules_to_save_are_averaged(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(value), **saved(value)) for value in (1.0, 3.0)]
    for method in ("factors", "cat"):
        mixed = mixing.mix(paths, [0.25, 0.75], method=method).adapter
        np.testing.assert_array_equal(mixed.saved["score.weight"], np.full((2, 3), 2.5))
        assert mixed.config.modules_to_save == ("score",)


def test_modules_to_save_are_refused_where_they_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    full = make_adapter(tmp_path / "full", **saved(1.0))
    with pytest.raises(AdapterError, match=r"holds the trained module score\.weight"):
        mixing.mix([full, make_adapter(tmp_path / "none")], [0.5, 0.5], method="cat")
    with pytest.raises(AdapterError, match=r"with shape \(3, 3\)"):
        mixing.mix([full, make_adapter(tmp_path / "more", **saved(1.0, (3, 3)))], [0.5, 0.5])
    with pytest.raises(AdapterError, match="sum to 1 without the base"):
        mixing.mix([full], [0.5], base_weight=0.5)


def test_copies_of_the_base_must_agree(tmp_path: Path) -> None:
    def with_copy(name: str, value: float) -> Path:
        copy = np.full((4, 3), value, np.float32)
        return make_adapter(tmp_path / name, extra={"base_model.model.model.embed_tokens.weight": copy})

    one, same, other = with_copy("one", 1.0), with_copy("same", 1.0), with_copy("other", 2.0)
    assert set(mixing.mix([one, same], [0.3, 0.7]).adapter.copies) == {"model.embed_tokens.weight"}
    with pytest.raises(AdapterError, match="other base embeddings"):
        mixing.mix([one, other], [0.3, 0.7])


def test_an_adapter_of_weight_zero_is_checked_and_takes_no_part(tmp_path: Path) -> None:
    one, other = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b", 1, rank=3)
    soup = mixing.mix([one, other], [1.0, 0.0], method="cat")
    for module, layer in soup.adapter.layers.items():
        assert layer.rank == 2
        np.testing.assert_allclose(update_of(soup.adapter, module), update_of(mixing.read(one), module), rtol=1e-6)
    with pytest.raises(AdapterError, match="has rank 3"):
        mixing.mix([one, other], [1.0, 0.0])


@pytest.mark.parametrize(("told", "meant"), [("bf16", "BF16"), ("f32", "F32"), ("Bf16", "BF16")])
def test_a_dtype_in_other_cases_is_known(told: str, meant: str) -> None:
    with pytest.raises(AdapterError) as caught:
        mixing.check_dtype(told)
    assert caught.value.hint == f"Did you mean {meant}?"
