"""Text that fits a picture: names of any length and script, cut or wrapped to the room they have."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import cast

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
FALLBACKS = (  # for scripts that the first font lacks: what Linux, macOS and Windows may have
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "IPAexGothic",
    "Arial Unicode MS",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Hebrew",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Noto Emoji",
    "Symbola",
    "Segoe UI Emoji",
    "Segoe UI Symbol",
)
_BREAK = re.compile(r"(?<=[\s_/.:,-])")


@cache
def families() -> list[str]:
    """Return the default font and those installed that may have what it lacks."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


def printable(name: str) -> str:
    """Return a name on one line; signs that no file may hold or that turn the text around are replaced."""
    return "".join(UNKNOWN if _unprintable(letter) else letter for letter in " ".join(name.split()))


def shortened(figure: Figure, name: str, room: float, size: float) -> str:
    """Return a name that takes at most ``room`` points, with its middle left out where it is too long."""
    name = printable(name)
    if _width(figure, name, size) <= room:
        return name
    least, most = 0, len(name)
    while most - least > 1:
        kept = (least + most) // 2
        least, most = (kept, most) if _width(figure, _cut(name, kept), size) <= room else (least, kept)
    return _cut(name, least)


def wrapped(figure: Figure, name: str, room: float, size: float, lines: int = 2) -> str:
    """Return a name on at most ``lines`` lines of ``room`` points each; the last one is shortened."""
    rest = printable(name)
    done: list[str] = []
    while len(done) < lines - 1 and _width(figure, rest, size) > room:
        line = _first_line(figure, rest, room, size)
        done.append(line.strip())
        rest = rest[len(line) :].strip()
    return "\n".join([*done, shortened(figure, rest, room, size)])


def _first_line(figure: Figure, text: str, room: float, size: float) -> str:
    """Return the start of a text that fits, up to the last sign where a line may break."""
    fitting = 1
    while fitting < len(text) and _width(figure, text[: fitting + 1], size) <= room:
        fitting += 1
    breaks = [mark.start() for mark in _BREAK.finditer(text, fitting // 3, fitting)]
    return text[: breaks[-1]] if breaks else text[:fitting]


def _cut(name: str, kept: int) -> str:
    """Return the ends of a name, ``kept`` signs in all, around an ellipsis."""
    tail = kept // 2
    return name[: kept - tail].rstrip() + ELLIPSIS + (name[-tail:].lstrip() if tail else "")


def _width(figure: Figure, text: str, size: float) -> float:
    """Return the width of a text in points."""
    renderer = cast(FigureCanvasAgg, figure.canvas).get_renderer()
    width, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=size), False)
    return float(width) * 72 / float(figure.dpi)


def _unprintable(letter: str) -> bool:
    turns = unicodedata.bidirectional(letter) in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return turns or unicodedata.category(letter) in {"Cc", "Cs"} or letter in "\ufffe\uffff"
