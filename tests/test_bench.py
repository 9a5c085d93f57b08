"""make bench: a part that fails is named, and stops nothing else."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """Return the script as a module."""
    folder = ROOT / "tests/benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = spec_from_file_location("bench", folder / "bench.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules["bench"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(folder))


def test_a_part_that_fails_is_named_and_stops_nothing(bench: ModuleType, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("print('| seconds |')")
    bad.write_text("import sys; sys.exit('no such thing')")
    part = bench.Part("Both", [[str(bad)], [str(good)]], [[str(good)]])
    done = bench.measured(part, quick=False)
    assert done.tables == "| seconds |\n"
    assert "bad.py: exit code 1" in done.problem
    assert "no such thing" in done.problem
    assert bench.measured(part, quick=True).problem == ""
    text = bench.written({"mix": done, "merge": bench.Done("| a |", 60)}, quick=False)
    assert "**Failed: mix.**" in text
    assert text.index("no such thing") < text.index("| a |")


def test_what_cannot_be_set_up_is_named_and_the_rest_measured(bench: ModuleType, tmp_path: Path) -> None:
    good = tmp_path / "good.py"
    good.write_text("print('measured all the same')")
    done = bench.measured(bench.Part("Peer", [[str(good)]], [], needs="no-such-peer"), quick=False)
    assert "make no-such-peer" in done.problem
    assert done.tables == "measured all the same\n"


def test_every_part_runs_scripts_that_are_there(bench: ModuleType) -> None:
    for part in bench.PARTS.values():
        for words in (*part.commands, *part.quick):
            assert (ROOT / "tests/benchmarks" / words[0]).is_file()
        assert part.needs is None or f"\n{part.needs}:" in (ROOT / "Makefile").read_text()
