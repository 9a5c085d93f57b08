"""Temporary files and folders: whole or absent, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsoup.files import whole_folder

HOUR = 3600.0
WRITE_AND_WAIT = """
import pathlib, sys, time
from rsoup.files import whole_folder
with whole_folder(pathlib.Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""


def make(folder: Path) -> None:
    with whole_folder(folder) as partial:
        (partial / "whole").write_text("whole")


def test_a_folder_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_folder(tmp_path / "out"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_behind_is_removed_and_what_is_at_work_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out [1]"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, out], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        partial = Path(process.stdout.readline().strip())
        long_ago = partial.stat().st_mtime - HOUR
        os.utime(partial, (long_ago, long_ago))
        make(out)
        assert (partial / "half").is_file()
        process.kill()
    make(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]
    assert (out / "whole").is_file()


def test_a_folder_just_begun_is_left_alone(tmp_path: Path) -> None:
    young = tmp_path / ".out.abc.partial"
    young.mkdir()
    make(tmp_path / "out")
    assert young.is_dir()
