"""``rsoup mix --check`` of adapters, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Command, assert_refused

from .making import make_adapter


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Three adapters of long names, the third of another rank."""
    names = ("helpful-and-harmless", "faithful-to-the-source", "brief")
    return [make_adapter(tmp_path / name, seed, rank=2 + seed // 2) for seed, name in enumerate(names)]


def test_it_reads_at_eighty_columns_and_writes_nothing(
    adapters: list[Path], tmp_path: Path, rsoup: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    called = rsoup("mix", *adapters, "--check", "-o", tmp_path / "out")
    assert called.code == 0
    assert not (tmp_path / "out").exists()
    reasons = [line for line in called.lines if line.startswith("factors: ")]
    assert len(reasons) == 1  # of any length: a terminal folds it
    assert max(len(line) for line in called.lines if line not in reasons) <= 80
    for part in ("by chance", "±", "from the exact mix", "in words", "- helpful-and-harmless and", "same start: not"):
        assert part in called.out


def test_of_many_adapters_some_sentences_of_each_kind_are_shown(tmp_path: Path, rsoup: Command) -> None:
    paths = [make_adapter(tmp_path / str(number)) for number in range(4)]
    called = rsoup("mix", *paths, "--check")
    assert called.out.count("are the same update") == 3
    assert "- 3 more pairs of this kind (same): --json has them." in called.out


def test_it_heeds_weights_and_options(adapters: list[Path], rsoup: Command) -> None:
    def told(*words: object) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = json.loads(rsoup("mix", *adapters[:2], "--check", "--json", *words).out)
        return found

    usual = told()
    assert told("--lambda", 0.5) == usual
    assert told("--lambda", 0.1)["effects"]["factors"] != usual["effects"]["factors"]
    assert told("--density", 0.1)["effects"]["dare"]["distance"] > usual["effects"]["dare"]["distance"]
    assert told("--rank", 1)["effects"]["svd"]["distance"] > usual["effects"]["svd"]["distance"]
    assert told("--seed", 5)["effects"]["dare"] != usual["effects"]["dare"]
    weights = told("--base-weight", 0.2)["weights"]
    assert weights == [0.4, 0.4]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--method tie", "There is no method 'tie'", "Did you mean ties?"),
        ("--method factors --density 0.5", "The method factors takes no density", "ties or dare"),
        ("--density 2", "The density 2 is not in (0, 1]", "--density 0.9"),
        ("--lambda 0.5 -w 0.5 -w 0.5", "Both weights and --lambda", "one of them"),
        ("--dtype F31", "no dtype 'F31'", "F32"),
        ("-w 1", "1 weights for 2 adapters", "-w"),
    ],
)
def test_what_no_mix_would_take_is_refused(
    words: str, message: str, hint: str, adapters: list[Path], rsoup: Command
) -> None:
    assert_refused(rsoup("mix", *adapters[:2], "--check", *words.split()), message, hint)


def test_weights_off_the_simplex_are_looked_at_with_a_warning(adapters: list[Path], rsoup: Command) -> None:
    called = rsoup("mix", *adapters[:2], "--check", "--lambda", 1.5)
    assert (called.code, called.err.count("--allow-extrapolation")) == (0, 1)
    assert (
        "--allow-extrapolation"
        not in rsoup("mix", *adapters[:2], "--check", "--lambda", 1.5, "--allow-extrapolation").err
    )
