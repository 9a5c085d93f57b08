"""Make a report: read, analyse, draw, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsoup.errors import ResultsError
from rsoup.files import write_json, write_text
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options
from rsoup.report.pictures import draw_pictures
from rsoup.report.rendering import render_page
from rsoup.report.schema import Report


def make_report(inputs: Sequence[Path], out: Path, options: Options) -> Report:
    """Write pareto.json, the pictures and index.html of measured points into the folder ``out``.

    Nothing is written if an input or an option is refused; pareto.json comes last.
    """
    if not inputs:
        raise ResultsError("No results were given.", "Give results.json of rsoup eval, a CSV or a printed block.")
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out}: is a file, not a folder.", "Give a folder with -o.")
    measured = read_inputs(list(inputs), options.objectives, options.where)
    report = analyse(measured, options)
    page = render_page(report, measured.texts)
    try:
        draw_pictures(report, out)
        write_text(out / "index.html", page)
        write_json(out / "pareto.json", report.model_dump(mode="json", by_alias=True))
    except OSError as problem:
        raise ResultsError(
            f"{out}: cannot be written ({problem.strerror}).", "Give another folder with -o."
        ) from problem
    return report
