"""What follows from a machine's facts."""

from __future__ import annotations

from typing import Any

import pytest

from rsoup.doctor.findings import Device, Facts, findings, fitting
from rsoup.doctor.machine import GIB, Machine
from rsoup.doctor.needs import BASE, EXTRAS, fits
from rsoup.recipe_headers import Header

GOOD = Machine("Linux", "3.11", "CPU", ("AMX", "AVX-512"), 8, 64 * GIB, 60 * GIB, 100 * GIB, None)
EVERYTHING = {
    "accelerate": "1.15.0", "datasets": "5.2.0", "peft": "0.21.2", "torch": "2.13.0+cpu", "transformers": "5.23.0",
    "trl": "1.16.0", "bitsandbytes": "0.50",
}  # fmt: skip
A100 = Device("cuda", "A100", 40 * GIB, bf16=True)
SMALL = Header("small", "2 CPU cores, 5 GB of memory, the extra [train]", "", "", "")
LARGE = Header("large", "one GPU of 24 GB, 17 GB of disk, the extra [train], the hub", "", "", "")


def facts(machine: Machine = GOOD, **changed: Any) -> Facts:
    given: dict[str, Any] = {"rsoup": "0", "machine": machine, "packages": EVERYTHING, "devices": ()}
    return Facts(**{**given, **changed})


def changed(**values: Any) -> Machine:
    return Machine(**{**vars(GOOD), **values})


def told(found: Facts) -> list[tuple[str, str]]:
    return [(finding.kind, finding.what) for finding in findings(found)]


def test_a_good_machine_has_nothing_to_tell() -> None:
    assert told(facts()) == []
    assert facts().usable


def test_an_import_that_fails_and_a_release_that_does_not_fit_are_broken() -> None:
    failing = facts(failures={"peft": "ImportError: no name X"})
    assert [kind for kind, _ in told(failing)] == ["broken"]
    assert "peft 0.21.2 cannot be imported: ImportError: no name X" in told(failing)[0][1]
    assert not failing.usable
    old = facts(packages={**EVERYTHING, "transformers": "4.57.1"})
    assert told(old) == [("broken", "transformers 4.57.1 is installed, and rsoup needs >=5.0")]
    assert not old.usable


def test_without_torch_it_is_usable_and_says_what_is_refused() -> None:
    found = facts(packages={}, devices=None)
    assert [kind for kind, _ in told(found)] == ["refused"]
    assert found.usable


@pytest.mark.parametrize(
    ("given", "kind", "what"),
    [
        ({"cuda": "12.6"}, "slow", "built for CUDA 12.6 and finds no GPU"),
        ({"machine": changed(nvidia_driver="550.54")}, "slow", "driver 550.54 is here, and this torch"),
        ({"machine": changed(features=("AVX2",))}, "slow", "neither AMX nor AVX-512 BF16"),
        ({"machine": changed(cores=1)}, "slow", "one core"),
        ({"settings": {"OMP_NUM_THREADS": "2"}}, "slow", "leaves 6 of 8 cores idle"),
        ({"settings": {"HF_HUB_OFFLINE": "1"}}, "note", "HF_HUB_OFFLINE is set"),
        ({"machine": changed(free_disk=GIB)}, "note", "1.0 GB of disk"),
        ({"machine": changed(memory=4 * GIB), "recipes": {"a": SMALL, "b": SMALL}}, "refused", "needed for a, b"),
        ({"hub": "cannot be reached (gaierror)"}, "refused", "the hub: cannot be reached"),
        ({"devices": (Device("cuda", "T4", 16 * GIB, bf16=False),), "cuda": "12.6"}, "note", "T4 does not compute in"),
    ],
)
def test_each_trouble_is_told_once(given: dict[str, Any], kind: str, what: str) -> None:
    (found,) = told(facts(**given))
    assert found[0] == kind
    assert what in found[1]


@pytest.mark.parametrize(
    "given",
    [
        {"devices": (A100,), "cuda": "12.6", "machine": changed(nvidia_driver="550", features=(), cores=1)},
        {"settings": {"HF_HUB_OFFLINE": "0"}},
        {"settings": {"OMP_NUM_THREADS": "8"}},
        {"machine": changed(memory=int(4.7 * GIB)), "recipes": {"a": SMALL}},  # sold as 5 GB
        {"hub": "reachable"},
    ],
)
def test_what_is_as_it_should_be_is_not_told(given: dict[str, Any]) -> None:
    assert told(facts(**given)) == []


@pytest.mark.parametrize(
    ("given", "lack"),
    [
        ({"devices": (A100,)}, None),
        ({"devices": ()}, "a GPU"),
        ({"devices": None}, None),
        ({"devices": (Device("cuda", "T4", 16 * GIB, bf16=False),)}, "a GPU of 24 GB"),
        ({"devices": (A100,), "machine": changed(free_disk=9 * GIB)}, "17 GB of disk"),
        ({"devices": (A100,), "packages": {"torch": "2.13.0"}}, "[train]"),
        ({"devices": (A100,), "settings": {"HF_HUB_OFFLINE": "1"}}, "the hub"),
    ],
)
def test_a_recipe_fits_a_machine_that_has_what_its_header_asks(given: dict[str, Any], lack: str | None) -> None:
    assert fitting(facts(recipes={"large": LARGE}, **given)) == {"large": lack}


def test_extras_and_releases_are_those_of_the_package() -> None:
    import tomllib
    from pathlib import Path

    from packaging.requirements import Requirement

    def specified(lines: list[str]) -> dict[str, str]:
        read = [Requirement(line) for line in lines]
        return {one.name: str(one.specifier) for one in read}

    def normal(wanted: dict[str, str]) -> dict[str, str]:
        return specified([f"{name}{fit}" for name, fit in wanted.items()])

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    optional = {name: specified(lines) for name, lines in project["optional-dependencies"].items() if name != "dev"}
    assert {name: normal(dict(extra.packages)) for name, extra in EXTRAS.items()} == optional
    assert normal(BASE) == specified(project["dependencies"])


def test_a_version_fits_by_its_release() -> None:
    assert fits("2.13.0+cpu", ">=2.6")
    assert fits("1.16.3", ">=1.16,<1.17")
    assert not fits("1.17.0", ">=1.16,<1.17")
    assert not fits("5.0", ">=18")
    assert fits("5.1.0.dev0", ">=5.0")
    assert fits("built by hand", ">=5.0")
