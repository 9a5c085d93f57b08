"""The recording shows what a command drew, when it drew it, and asks nothing of a server."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def recording() -> ModuleType:
    """The script as a module."""
    spec = spec_from_file_location("recording", ROOT / "tests/benchmarks/recording.py")
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["recording"] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


WRITTEN = [
    (1.0, b"loading\r\n"),
    (2.0, b"\x1b[1mstep 1\x1b[0m of 2"),
    (5.0, b"\r\x1b[2K\x1b[31mstep 2\x1b[0m of 2 & {more}\r\n"),
    (6.0, b"\x1b[2A\x1b[2Kdone\x1b[2B"),
    (10.0, b""),
]


def texts(frame: object) -> list[str]:
    return ["".join(run.text for run in row) for row in frame.rows]  # type: ignore[attr-defined]


def test_screens_are_what_a_terminal_shows(recording: ModuleType) -> None:
    frames = recording.frames_of(WRITTEN, columns=40, rows=3)
    assert [frame.time for frame in frames] == [0.0, 1.0, 2.0, 5.0, 6.0]
    assert texts(frames[2]) == ["loading", "step 1 of 2", ""]
    assert texts(frames[-1]) == ["done", "step 2 of 2 & {more}", ""]
    assert [(run.column, run.bold) for run in frames[2].rows[1]] == [(0, True), (6, False)]
    assert frames[-1].rows[1][0].colour == recording.COLOURS["red"]


def test_thinning_keeps_the_last_screen_of_each_part(recording: ModuleType) -> None:
    frames = recording.frames_of(WRITTEN, columns=40, rows=3)
    assert [frame.time for frame in recording.thinned(frames, 10.0, most=2)] == [2.0, 6.0]


def test_the_picture_shows_each_row_when_it_was_there(recording: ModuleType) -> None:
    text = recording.picture(recording.frames_of(WRITTEN, columns=40, rows=3), 10.0, "a & b", columns=40, rows=3)
    root = ET.fromstring(text)
    seen: dict[str, tuple[str | None, str | None]] = {}
    for group in root.iter(f"{SVG}g"):
        moves = group.find(f"{SVG}animate")
        words = " ".join(part.text or "" for part in group.findall(f"{SVG}text"))
        if moves is not None:
            seen[words] = (moves.get("keyTimes"), group.get("visibility"))
    total = 10.0 + recording.HELD
    assert seen["step 1 of 2"] == (f"0;{2 / total:.5f};{5 / total:.5f}", "hidden")
    assert seen["done"] == (f"0;{6 / total:.5f}", None)  # still there at the end, so seen without animation
    assert seen["step 2 of 2 & {more}"][1] is None
    clocks = [part.text for part in root.iter(f"{SVG}text") if re.fullmatch(r"\d+:\d\d", part.text or "")]
    assert clocks[0] == "0:00"
    assert clocks[-1] == "0:10"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_command_is_recorded_in_a_terminal_of_the_given_size(recording: ModuleType) -> None:
    code = "import os, sys, time; print(os.get_terminal_size().columns, sys.stdout.isatty()); time.sleep(0.3); print(1)"
    written, ended = recording.record([sys.executable, "-c", code], columns=77, rows=5)
    assert ended == 0
    frames = recording.frames_of(written, columns=77, rows=5)
    assert texts(frames[-1])[:2] == ["77 True", "1"]
    assert frames[-1].time - frames[1].time == pytest.approx(0.3, abs=0.25)


def test_a_command_that_fails_writes_nothing(
    recording: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.svg"
    words = ["recording", "-o", str(out), "--", sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="ended with 3"):
        recording.main()
    assert not out.exists()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_that_are_shown_are_small_and_ask_nothing_of_a_server(path: Path) -> None:
    text = path.read_text()
    assert len(text.encode()) <= 300_000
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "/home/" not in text
    ET.fromstring(text)
