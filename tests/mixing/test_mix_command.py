"""What ``rsoup mix`` answers to lines that are typed often and mean something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Command, assert_refused
from rsoup import mixing
from rsoup.errors import AdapterError
from rsoup.mixing.checkpoints.rules import RULES, check_rule
from rsoup.mixing.methods import METHODS, OF_MODELS

from .making import make_adapter


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    return [make_adapter(tmp_path / name, seed) for seed, name in enumerate("ab")]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["-w", "0.3", "0.7"], "Write -w before each weight: -w 0.3 -w 0.7"),
        (["0.3", "0.7"], "Write -w before each weight: -w 0.3 -w 0.7"),
        (["--lambda", "0.3", "0.7"], "Leave 0.7 out: the first one's weight is 0.7."),
    ],
)
def test_a_number_among_the_ingredients_is_a_weight_that_lacks_its_flag(
    words: list[str], hint: str, two: list[Path], rsoup: Command
) -> None:
    assert_refused(rsoup("mix", *two, *words, "-o", "out"), "is a number, and no folder", hint)
    assert not Path("out").exists()


def test_a_folder_that_is_called_as_a_number_is_an_ingredient(two: list[Path], rsoup: Command) -> None:
    two[1].rename("0.7")
    assert rsoup("mix", two[0], "0.7", "--lambda", 0.3, "--allow-different-starts", "-o", "out").code == 0


@pytest.mark.parametrize("more", [["-o", "out"], ["--check"]])
def test_adapters_do_not_mix_by_a_method_of_models(more: list[str], two: list[Path], rsoup: Command) -> None:
    called = rsoup("mix", *two, "--lambda", 0.3, "--method", "linear", *more)
    assert_refused(called, "linear is for whole models", "by factors (the default: the paper's average")


def test_each_method_of_one_kind_alone_is_told_to_be_of_that_kind() -> None:
    assert set(OF_MODELS) == set(RULES) - set(METHODS)
    for name in OF_MODELS:
        with pytest.raises(AdapterError, match="for whole models"):
            mixing.check_method(name, mixing.Options())
    for name in set(METHODS) - set(RULES):
        with pytest.raises(AdapterError, match="for adapters"):
            check_rule(name, mixing.Options(), has_base=False, base_weight=0.0)
