"""The models that a report chose are those that its commands make."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixing.making import make_adapter, update_of
from rsoup import mixing
from rsoup.errors import ResultsError
from rsoup.report.analysis import analyse
from rsoup.report.choices import mix_command
from rsoup.report.export import chosen_soups
from rsoup.report.inputs import read_inputs
from rsoup.report.inputs.origins import starts_of
from rsoup.report.options import Options

POINTS = "lambda,a,b\n0,1,0\n0.25,0.9,0.5\n1,0,1\n1.5,-1,1.2\n"


def chosen(folder: Path, *, adapters: bool = True, **asked):
    (folder / "points.csv").write_text(POINTS)
    report = analyse(read_inputs([folder / "points.csv"], {}, {}), Options(**asked))
    places = {name: str(make_adapter(folder / name, seed)) for seed, name in enumerate("ab")} if adapters else {}
    return report.model_copy(update={"adapters": places})


def test_every_choice_is_made_with_its_weights(tmp_path):
    report = chosen(tmp_path, knee=True, at_least={"b": 1.1}, prefer=({"a": 0.4, "b": 0.6},))
    soups = chosen_soups(report, tmp_path / "out")
    assert {folder.name for folder in soups} == {choice.folder for choice in report.choices}
    ends = [mixing.read(tmp_path / name) for name in "ab"]
    for choice in report.choices:
        soup = soups[tmp_path / "out" / choice.folder]
        exact = mixing.mix(ends, [choice.weights["a"], choice.weights["b"]], allow_extrapolation=True).adapter
        for module in exact.layers:
            np.testing.assert_array_equal(update_of(soup.adapter, module), update_of(exact, module))
    assert report.choices[-2].weights == {"a": -0.5, "b": 1.5}  # measured outside the simplex, so it may be made


def test_the_base_takes_what_the_adapters_leave_as_in_the_evaluation(tmp_path):
    """Under factors that is not the mix of the adapters' weights alone; and what was measured may be made."""
    (tmp_path / "points.csv").write_text("weight:a,weight:b,a,b\n1,0,1,0\n0.4,0.2,2,2\n0,1,0,1\n")
    report = analyse(read_inputs([tmp_path / "points.csv"], {}, {}), Options(knee=True))
    starts = [{"schema": 1, "kind": "expert", "name": name, "init_sha256": name * 64} for name in "ab"]
    ends = [make_adapter(tmp_path / own["name"], seed, provenance=own) for seed, own in enumerate(starts)]
    places = {path.name: str(path) for path in ends}
    [soup] = chosen_soups(report.model_copy(update={"adapters": places, "method": "factors"}), tmp_path / "o").values()
    expected = mixing.mix(ends, [0.4, 0.2], base_weight=0.4, allow_different_starts=True).adapter
    assert soup.base_weight == pytest.approx(0.4)
    for module in expected.layers:
        np.testing.assert_allclose(update_of(soup.adapter, module), update_of(expected, module), rtol=1e-5, atol=1e-6)


def test_the_order_of_the_columns_does_not_make_one_folder_of_two_mixes(tmp_path):
    text = "kind,weight:b,weight:a,a,b\nsoup,1,0,0,1\nsoup,.3,.7,.6,.3\nsoup,.7,.3,.3,.6\nsoup,0,1,1,0\n"
    (tmp_path / "points.csv").write_text(text)
    measured = read_inputs([tmp_path / "points.csv"], {}, {})
    report = analyse(measured, Options(prefer=({"a": 0.3, "b": 0.7},), at_least={"a": 0.6, "b": 0.3}))
    folders = {choice.folder: choice.weights for choice in report.choices}
    assert all(folders[choice.folder] == choice.weights for choice in report.choices)
    assert {"soup-0.70-0.30", "soup-0.30-0.70"} <= folders.keys()


def test_nothing_chosen_or_adapters_unknown_are_refused(tmp_path):
    with pytest.raises(ResultsError, match="nothing is chosen") as refusal:
        chosen_soups(chosen(tmp_path), tmp_path / "out")
    assert "--knee" in refusal.value.hint
    with pytest.raises(ResultsError, match="in which folder the adapter a, b is"):
        chosen_soups(chosen(tmp_path, adapters=False, knee=True), tmp_path / "out")


@pytest.mark.parametrize("starts", ["aa", "ab", "a-"])
def test_a_command_allows_what_its_adapters_need_allowed(tmp_path, rsoup, starts):
    """Adapters that are known to have begun at different ones need leave to be mixed; the printed command has it."""
    (tmp_path / "points.csv").write_text(POINTS)
    notes = [
        {"schema": 1, "kind": "expert", "name": name, "init_sha256": own * 64}
        for name, own in zip("ab", starts, strict=True)
    ]
    ends = [
        make_adapter(tmp_path / own["name"], seed, provenance=None if "-" in own["init_sha256"] else own)
        for seed, own in enumerate(notes)
    ]
    places = {path.name: str(path) for path in ends}
    measured = replace(read_inputs([tmp_path / "points.csv"], {}, {}), adapters=places, starts=starts_of(places))
    command = shlex.split(mix_command(measured, {"a": 0.75, "b": 0.25}))
    assert ("--allow-different-starts" in command) == (starts == "ab")
    assert rsoup(*command[1:-1], tmp_path / "soup").code == 0
    assert "--allow-different-starts" not in mix_command(measured, {"a": 1.0, "b": 0.0})
    assert analyse(measured, Options()).starts == starts_of(places)
