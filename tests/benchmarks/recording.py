"""Record what a command prints in a terminal, with its times, as an SVG that plays by itself.

    python tests/benchmarks/recording.py -o recipes/quickstart.svg -- rsoup run quickstart -o /tmp/recorded
    python tests/benchmarks/recording.py -o tiny.svg -- rsoup run quickstart --tiny -o /tmp/recorded

The command runs in a pseudo-terminal; every screen in the picture is one that it drew. The picture plays faster by one
factor throughout, and its clock shows the time that the command took. It names no font of a server and holds no script;
where nothing moves, it shows the last screen.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 30
CELL, LINE, MARGIN, TOP = 8.43, 19.0, 14.0, 44.0
PLAYED, HELD = 30.0, 8.0
"""Seconds that the picture moves, and those that it shows its last screen."""
FRAMES = 150
LIMIT = 300_000
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, PAPER, FAINT = "#d0d4d9", "#16191d", "#8a9199"
COLOURS = {
    "black": "#4a5058", "red": "#f07178", "green": "#8fd18f", "brown": "#e5c07b", "blue": "#7aa7e8",
    "magenta": "#d39be0", "cyan": "#6fc7c7", "white": INK, "default": INK,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Signs beside each other that look alike."""

    column: int
    text: str
    colour: str
    bold: bool


Row = tuple[Run, ...]


@dataclass(frozen=True)
class Frame:
    """What the screen shows from a time on, in seconds since the command began."""

    time: float
    rows: tuple[Row, ...]


def record(command: Sequence[str], columns: int = COLUMNS, rows: int = ROWS) -> tuple[list[tuple[float, bytes]], int]:
    """Run a command in a terminal; return what it wrote with the times, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
    env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    start, written = time.monotonic(), list[tuple[float, bytes]]()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        for piece in _pieces(ours):
            written.append((time.monotonic() - start, piece))
        code = process.wait()
    os.close(ours)
    written.append((time.monotonic() - start, b""))
    return written, code


def _pieces(handle: int) -> Iterator[bytes]:
    while True:
        select.select([handle], [], [])
        try:
            piece = os.read(handle, 65536)
        except OSError:  # the command has closed its end
            return
        if not piece:
            return
        yield piece


def frames_of(written: Iterable[tuple[float, bytes]], columns: int = COLUMNS, rows: int = ROWS) -> list[Frame]:
    """Return the screens that came of what a command wrote; screens that are the same are one."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    found = [Frame(0.0, ((),) * rows)]
    for when, piece in written:
        stream.feed(piece)
        shown = tuple(_row(screen, line) for line in range(rows))
        if shown != found[-1].rows:
            found.append(Frame(when, shown))
    return found


def _row(screen: pyte.Screen, line: int) -> Row:
    """Return the runs of a line, without blanks at its end."""
    cells = [screen.buffer[line][column] for column in range(screen.columns)]
    runs: list[Run] = []
    for column, cell in enumerate(cells):
        look = (_colour(cell.fg), cell.bold)
        if runs and (runs[-1].colour, runs[-1].bold) == look:
            runs[-1] = Run(runs[-1].column, runs[-1].text + cell.data, *look)
        else:
            runs.append(Run(column, cell.data, *look))
    kept = [Run(run.column, run.text.rstrip(), run.colour, run.bold) for run in runs]
    return tuple(run for run in kept if run.text)


def _colour(name: str) -> str:
    return COLOURS.get(name.removeprefix("bright"), f"#{name}" if len(name) == 6 and name.isalnum() else INK)


def thinned(frames: Sequence[Frame], end: float, most: int = FRAMES) -> list[Frame]:
    """Return the last frame of each of so many equal parts of the time, and the last of all."""
    kept: dict[int, Frame] = {}
    for frame in frames:
        kept[min(most - 1, int(frame.time / end * most)) if end else 0] = frame
    return list(kept.values())


def picture(frames: Sequence[Frame], end: float, title: str, columns: int = COLUMNS, rows: int = ROWS) -> str:
    """Return an SVG that plays the frames of ``end`` seconds, then holds the last one, and begins anew."""
    used = max((row + 1 for frame in frames for row in range(rows) if frame.rows[row]), default=1)
    width, height = 2 * MARGIN + columns * CELL, TOP + used * LINE + MARGIN
    scale = min(1.0, PLAYED / end) if end else 1.0
    total = end * scale + HELD
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(title)}: what it printed, in {_clock(end)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
        f'<g font-family="{FONT}" font-size="14" fill="{INK}">',
        f'<text x="{MARGIN}" y="24" fill="{FAINT}">$ {escape(title)}</text>',
    ]
    ticks = [(second, _clock(second)) for second in _ticks(end)]
    for place, (when, text) in enumerate(ticks):
        until = ticks[place + 1][0] if place + 1 < len(ticks) else None
        tag = f'text x="{width - MARGIN:.0f}" y="24" fill="{FAINT}" text-anchor="end"'
        lines.append(_during(tag, text, when, until, scale, total))
    for row in range(used):
        for begin, until, runs in _spans(frames, row):
            lines.append(_during("g", _drawn(runs, TOP + (row + 0.8) * LINE), begin, until, scale, total))
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def _spans(frames: Sequence[Frame], row: int) -> Iterator[tuple[float, float | None, Row]]:
    """Yield from when until when (None: to the end) a row shows something that stays the same."""
    begin = 0
    for place in range(1, len(frames) + 1):
        if place < len(frames) and frames[place].rows[row] == frames[begin].rows[row]:
            continue
        if frames[begin].rows[row]:
            yield frames[begin].time, frames[place].time if place < len(frames) else None, frames[begin].rows[row]
        begin = place


def _drawn(runs: Row, y: float) -> str:
    """Return a row as texts; what is apart by more than a blank is placed by itself, whatever the font."""
    pieces = []
    for run in runs:
        colour = f' fill="{run.colour}"' if run.colour != INK else ""
        bold = ' font-weight="bold"' if run.bold else ""
        for word in re.finditer(r"\S+(?: \S+)*", run.text):
            x = MARGIN + (run.column + word.start()) * CELL
            pieces.append(f'<text x="{x:.1f}" y="{y:.1f}"{colour}{bold}>{escape(word[0], quote=False)}</text>')
    return "".join(pieces)


def _during(tag: str, inner: str, begin: float, until: float | None, scale: float, total: float) -> str:
    """Return a group or text that is seen between two times of each round; unmoved, if it is there at the end."""
    name = tag.partition(" ")[0]
    first, last = begin * scale / total, None if until is None else until * scale / total
    hidden = "" if last is None else ' visibility="hidden"'
    times, values = [0.0], ["visible" if first == 0 else "hidden"]
    if first > 0:
        times, values = [*times, first], [*values, "visible"]
    if last is not None:
        times, values = [*times, last], [*values, "hidden"]
    if len(times) == 1:
        return f"<{tag}>{inner}</{name}>"
    moments = ";".join("0" if time == 0 else f"{time:.5f}" for time in times)
    animation = (
        f'<animate attributeName="visibility" calcMode="discrete" dur="{total:.2f}s" repeatCount="indefinite" '
        f'values="{";".join(values)}" keyTimes="{moments}"/>'
    )
    return f"<{tag}{hidden}>{inner}{animation}</{name}>"


def _ticks(end: float) -> list[float]:
    """Return the times at which the clock moves: some sixty of them, the end among them."""
    step = max(1, round(end / 60))
    return [float(second) for second in range(0, int(end), step)] + [float(int(end))]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def main() -> None:
    """Record a command and write the picture; it has to succeed and to fit into the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    program = [sys.executable, "-m", "rsoup", *command[1:]] if command[:1] == ["rsoup"] else command
    written, code = record(program)
    if code:
        sys.stderr.buffer.write(b"".join(piece for _, piece in written))
        sys.exit(f"the command ended with {code}; nothing is written")
    end = written[-1][0]
    shown = [word for place, word in enumerate(command) if word != "-o" and command[place - 1] != "-o"]
    text = picture(thinned(frames_of(written), end), end, shlex.join(shown))
    if len(text.encode()) > LIMIT:
        sys.exit(f"the picture takes {len(text.encode())} bytes, more than {LIMIT}; nothing is written")
    given.output.write_text(text, encoding="utf-8")
    print(f"{given.output}: {len(text.encode())} bytes, {_clock(end)} of the command")


if __name__ == "__main__":
    main()
