"""Temporary files and folders: whole or absent, and nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rsoup.files import whole_file, whole_folder, write_text

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


def killed_while(code: str, path: Path) -> None:
    """Kill a process within the block of ``code``, which prints when it has come so far; let an hour pass."""
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    for left in path.parent.iterdir():
        long_ago = left.stat().st_mtime - HOUR
        os.utime(left, (long_ago, long_ago))


def test_a_file_that_a_kill_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    code = WRITE_AND_WAIT.replace("whole_folder", "whole_file").replace('(partial / "half")', "partial")
    killed_while(code, tmp_path / "out")
    [half] = tmp_path.iterdir()
    assert half.read_text() == "half"
    write_text(tmp_path / "other", "whole")
    assert half.exists()
    write_text(tmp_path / "out", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_folder_that_a_kill_left_half_replaced_is_lost_to_no_failure(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    code = """
import pathlib, sys, time
from rsoup.files import whole_folder
replace = pathlib.Path.replace
pathlib.Path.replace = lambda own, to: (replace(own, to), print(to, flush=True), time.sleep(60))
with whole_folder(pathlib.Path(sys.argv[1])) as partial:
    pass
"""
    killed_while(code, out)
    assert not out.exists()
    with pytest.raises(KeyError), whole_folder(out):
        raise KeyError
    assert (out / "whole").read_text() == "whole"
    make(out)
    assert list(tmp_path.iterdir()) == [out]


def test_what_the_system_says_to_a_writer_of_safetensors_is_an_error_of_the_system(tmp_path: Path) -> None:
    size = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, size[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, whole_file(tmp_path / "out") as partial:
            save_file({"a": np.ones(10_000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, size)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
