"""The code of a function: its file and the neighbours that it imports, found where Python would find them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsoup.errors import RewardError
from rsoup.recipe import RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.code import code_sha256
from rsoup.rewards.functions import load_function
from rsoup.rewards.samples import Sample

SAMPLE = [Sample("a", "four")]


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    """Forget the modules and folders of a test."""
    modules, paths = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = paths


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


MAIN = "from door_one import bonus\ndef f(completions):\n    return [bonus(c) for c in completions]\n"


def test_the_identity_of_a_function_follows_what_its_file_imports(tmp_path: Path) -> None:
    write(tmp_path, main=MAIN, door_one="from door_two import *\nimport json\n", door_two="bonus = len\n", json_="x")
    section = RewardSection(function=f"{tmp_path / 'main.py'}:f")
    hashes = [reward_identity("f", section)["file"]]
    for name, text in (("door_two", "bonus = str.count\n"), ("json_", "y"), ("main", MAIN + "\n")):
        write(tmp_path, **{name: text})
        hashes.append(reward_identity("f", section)["file"])
    assert hashes[0] != hashes[1] == hashes[2] != hashes[3]


def test_packages_and_relative_imports_count_and_what_is_installed_does_not(tmp_path: Path) -> None:
    write(tmp_path / "doors", __init__="", score="from . import parts\nfrom .parts.two import x\n")
    write(tmp_path / "doors" / "parts", __init__="", two="x = 1\n")
    sys.path.append(str(tmp_path))
    first = code_sha256("doors.score")
    write(tmp_path / "doors" / "parts", two="x = 2\n")
    assert first != code_sha256("doors.score") is not None
    assert code_sha256("trl.rewards") == code_sha256("trl.rewards") is not None
    assert code_sha256("nothing.there") is None


def test_a_neighbour_comes_before_what_is_installed_under_its_name(tmp_path: Path) -> None:
    site = write(tmp_path / "site", door_one="def bonus(text): return 99.0\n")
    sys.path.insert(0, str(site))
    own = write(tmp_path / "own", main=MAIN, door_one="bonus = len\n")
    assert load_function(f"{own / 'main.py'}:f")(SAMPLE) == [4]
    assert sys.path[0] == str(site)


@pytest.mark.parametrize("inside", [True, False])
def test_a_neighbour_that_is_not_the_one_that_is_found_is_refused(tmp_path: Path, inside: bool) -> None:
    late = "def f(completions):\n    from door_one import bonus\n    return [bonus(c) for c in completions]\n"
    main = late if inside else MAIN
    one = write(tmp_path / "one", main=MAIN, door_one="bonus = len\n")
    two = write(tmp_path / "two", main=main, door_one="def bonus(text): return 99.0\n")
    assert load_function(f"{one / 'main.py'}:f")(SAMPLE) == [4]
    with pytest.raises(RewardError, match=r"its import of door_one finds .*one/door_one.py, not the file beside it"):
        load_function(f"{two / 'main.py'}:f")


def test_a_file_is_run_once_for_all_rewards_in_it_and_anew_where_it_changed(tmp_path: Path) -> None:
    text = "runs = []\ndef f(**rest): runs.append(1); return [float(len(runs))]\ndef g(**rest): return f()\n"
    folder = write(tmp_path, main=text)
    first, second = (load_function(f"{folder / 'main.py'}:{name}") for name in "fg")
    assert [first(SAMPLE), second(SAMPLE)] == [[1.0], [2.0]]
    write(tmp_path, main=text + "\n")
    assert load_function(f"{folder / 'main.py'}:f")(SAMPLE) == [1.0]
