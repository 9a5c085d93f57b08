"""How points look, in pictures and on the page: fit for print and told apart without colour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rsoup.evaluation.results import Kind
from rsoup.files import whole_file

INK = "#1f2328"
FAINT = "#8a9099"
CHOSEN = "#b8860b"
COLUMN_INCHES = 3.5  # one column of a two-column paper


@dataclass(frozen=True)
class Look:
    """Colour (Okabe & Ito 2008), marker and word of a kind of point."""

    colour: str
    marker: str
    size: float
    word: str


LOOKS: dict[Kind, Look] = {
    "soup": Look("#0072B2", "o", 4.5, "soup"),
    "expert": Look("#0072B2", "D", 5.0, "expert"),
    "morl": Look("#D55E00", "^", 5.5, "MORL"),
    "base": Look("#555555", "s", 4.5, "base"),
    "ensemble": Look("#009E73", "v", 5.0, "ensemble of predictions"),
    "mod": Look("#CC79A7", "P", 5.0, "MOD"),
    "checkpoint": Look("#E69F00", "X", 5.0, "checkpoint"),
}

SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "rsoup",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name may hold a dollar sign
}
FORMATS = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


@contextmanager
def drawing(stem: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of that size in inches; save it as ``stem``.png, .svg and .pdf, the same bytes every time."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), dpi=300, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.draw_without_rendering()  # lays the figure out, once for all formats
        figure.set_layout_engine("none")
        for suffix, metadata in FORMATS.items():
            with whole_file(stem.with_suffix(f".{suffix}")) as partial:
                figure.savefig(partial, format=suffix, metadata=metadata)
