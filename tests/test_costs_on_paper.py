"""What recipes/COSTS.md says follows from its constants, and what is counted of them is still so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import laws
from benchmarks.costs import BASES, STATE, Machine, Plan, Work, choose, filled, forward, kept_bytes, learning
from benchmarks.costs_page import page

SMALL, LARGE = BASES
PAGE = Path(__file__).parents[1] / "recipes" / "COSTS.md"


def test_the_page_is_what_the_script_prints() -> None:
    assert PAGE.read_text() == page()


def test_the_shapes_are_those_of_the_models() -> None:
    """The numbers that the models' cards and files have."""
    assert (SMALL.parameters, LARGE.parameters) == (6_738_415_616, 68_976_648_192)
    assert SMALL.adapter(16) == 32 * 4 * 16 * (4096 + 4096) == 16_777_216


def test_memory_by_hand() -> None:
    """7B in bfloat16: 13.48 GB; an adapter of 16.8 million numbers of 20 bytes: 0.336 GB."""
    plan = Plan(SMALL, 2)
    assert plan.base == 2 * 6_738_415_616
    assert plan.state == 20 * 16_777_216
    assert STATE == 20
    assert plan.cache == 16 * (512 + 8 * 128) * 2 * 32 * 4096 * 2  # tokens, keys and values, layers, width, bytes
    sharded = replace(plan, gpus=8, placement="sharded")
    layer = 2 * (4 * 4096**2 + 3 * 4096 * 11_008)
    assert sharded.base == pytest.approx(2 * 6_738_415_616 - 32 * layer * 7 / 8 + 2 * layer)
    assert not Plan(LARGE, 2).fits  # 138 GB


def test_operations_by_hand() -> None:
    """A prompt of 512 tokens with 8 completions of 128: a row of 1,528 tokens, the output layer on 1,024."""
    work = Work()
    assert work.row == 512 + 8 * 127 == 1528
    matrices = 2 * (6_476_005_376 - 32 * 0 + 16_777_216) * 1528
    attention = 4 * 32 * 4096 * 1528**2
    assert forward(SMALL, work, 1) == matrices + attention + 2 * 32_000 * 4096 * 1024
    assert 2 < learning(SMALL, work, 1) / forward(SMALL, work, 1) < 2.1


def test_seconds_by_hand() -> None:
    """What bounds a token: reading the weights of one row, products of many, layers that arrive over links."""
    one = Plan(SMALL, 2, work=Work(prompts=1, group=1), machine=Machine(layer_seconds=0))
    read = 2 * 6_476_005_376 + 2 * 2 * (512 + 64) * 32 * 4096
    assert one._decoding(1, 512 + 64) == pytest.approx(read / (3.35e12 * 0.6))
    many = one._decoding(4096, 0)
    assert many == pytest.approx(2 * (6_476_005_376 + 32_000 * 4096) * 4096 / (989e12 * 0.35))
    sharded = Plan(LARGE, 2, 8, "sharded")
    assert sharded._decoding(1, 0) == pytest.approx(2 * 80 * LARGE.layer * 7 / 8 / (450e9 * 0.7))
    assert sharded.gather_seconds == pytest.approx(0.38, abs=0.01)


def test_waves_of_trainings_and_of_points() -> None:
    plan = Plan(SMALL, 2)
    assert plan.hours(1, 5) == pytest.approx(5 * plan.hours(8, 5))
    assert plan.hours(8, 5) == plan.hours(8, 8) == plan.training_seconds() / 3600
    assert plan.sweep_hours(8, 11) == 2 * plan.point_seconds() / 3600


def test_what_is_chosen() -> None:
    """Whole where it fits, sharded where it does not, 4 bits on one GPU; as many prompts in a pass as fit."""
    found = {(shape.name, gpus): choose(shape, 2, gpus) for shape in BASES for gpus in (1, 8)}
    assert {key: (own.placement, own.four_bits) for key, own in found.items() if own is not None} == {
        ("7B", 1): ("auto", False),
        ("7B", 8): ("auto", False),
        ("70B", 1): ("auto", True),
        ("70B", 8): ("sharded", False),
    }
    for plan in found.values():
        assert plan is not None
        assert plan.fits
        more = replace(plan, at_once=plan.at_once * 2)
        assert plan.at_once == plan.prompts or not more.fits
        assert (plan.sweep_hours(8, 11) is None) == plan.four_bits
    assert filled(Plan(LARGE, 2, machine=Machine(memory=20e9))) is None


def test_what_is_counted_on_small_models_is_what_the_laws_say(tmp_path: Path) -> None:
    """Bytes and operations, of a model and work that the law's numbers were not taken from."""
    shape = replace(laws.SMALL, hidden=96, keys=48, intermediate=224)
    work = replace(laws.WORK, length=20, group=4, rank=8)
    assert laws.layers_bytes(shape, work) == pytest.approx(kept_bytes(shape, work, work.prompts), rel=0.03)
    policy = laws.small_policy(tmp_path / "model", shape, work.rank)
    own = replace(shape, vocabulary=policy.language_model.head.weight.shape[0])
    found = laws.counted_operations(policy, work)
    expected = forward(own, work, work.prompts), learning(own, work, work.prompts)
    assert found == pytest.approx(expected, rel=0.03)
