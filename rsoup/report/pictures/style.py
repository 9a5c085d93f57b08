"""How points look in pictures: fit for print and told apart without colour."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from rsoup.evaluation.results import Kind
from rsoup.files import whole_file
from rsoup.report.pictures.lettering import families

INK = "#1f2328"
FAINT = "#8a9099"
CHOSEN = "#b8860b"
CHOSEN_INK = "#7a5600"  # for text, which needs more contrast than a ring
COLUMN_INCHES = 3.5  # one column of a two-column paper
PANEL_INCHES = 2.4  # side of one of several panels


@dataclass(frozen=True)
class Look:
    """Colour (Okabe & Ito 2008) of a kind of point, one as dark as thin bars need, marker and word."""

    colour: str
    bar: str
    marker: str
    size: float
    word: str


LOOKS: dict[Kind, Look] = {
    "soup": Look("#0072B2", "#4a90bd", "o", 4.5, "soup"),
    "expert": Look("#0072B2", "#4a90bd", "D", 5.0, "expert"),
    "morl": Look("#D55E00", "#dd7a33", "^", 5.5, "MORL"),
    "base": Look("#555555", "#8a8a8a", "s", 4.5, "base"),
    "ensemble": Look("#009E73", "#2f9f80", "v", 5.0, "ensemble"),
    "mod": Look("#CC79A7", "#c371a0", "P", 5.0, "MOD"),
    "mix": Look("#7B5EA7", "#8f78b5", "d", 4.5, "other front"),
    "checkpoint": Look("#E69F00", "#b98000", "X", 5.0, "checkpoint"),
    "model": Look("#7a5195", "#9776ae", "p", 5.0, "model"),
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
    with mpl.rc_context(SETTINGS | {"font.family": families()}), warnings.catch_warnings():
        # a script that no installed font has: the picture shows boxes, the page shows the names
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure = Figure(figsize=(width, height), dpi=300, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        lay_out(figure)
        for suffix, metadata in FORMATS.items():
            with whole_file(stem.with_suffix(f".{suffix}")) as partial:
                figure.savefig(partial, format=suffix, metadata=metadata)


def lay_out(figure: Figure) -> None:
    """Give every panel its place, once for all formats."""
    figure.draw_without_rendering()
    for panel in figure.axes:
        if panel.xaxis.get_offset_text().get_text():  # such as 1e-6, which stands where the title would
            panel.xaxis.labelpad = 11
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def write_legend(figure: Figure, handles: Sequence[Artist], title: str | None = None) -> Legend:
    """Write the legend below the panels in as many columns as fit; the figure grows by its height."""
    most = max((number for number in range(2, len(handles) + 1) if _fits(figure, handles, number)), default=1)
    rows = -(-len(handles) // most)
    legend = _legend(figure, handles, -(-len(handles) // rows), title)
    extent = legend.get_window_extent()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
    return legend


def _fits(figure: Figure, handles: Sequence[Artist], columns: int) -> bool:
    trial = _legend(figure, handles, columns, None)
    width = trial.get_window_extent().width
    trial.remove()
    return bool(width <= figure.bbox.width)


def _legend(figure: Figure, handles: Sequence[Artist], columns: int, title: str | None) -> Legend:
    return figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, title=title, title_fontsize=6.5, columnspacing=1.4
    )
