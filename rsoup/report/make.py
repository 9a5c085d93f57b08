"""Make a report: read, analyse, draw, write."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from rsoup import mixing
from rsoup.errors import ResultsError, reason_of
from rsoup.files import temporary_folder, write_json, write_text
from rsoup.report.analysis import analyse
from rsoup.report.export import chosen_soups
from rsoup.report.inputs import read_inputs
from rsoup.report.options import Options
from rsoup.report.pictures import PICTURE_FILES, draw_pictures
from rsoup.report.rendering import render_page
from rsoup.report.schema import Report

PAGE, FIGURES = "index.html", "pareto.json"
OF_MODELS = ("config.json", "adapter_config.json")
"""What folders hold that are no report's."""


def make_report(inputs: Sequence[Path], out: Path, options: Options, export: Path | None = None) -> Report:
    """Write pareto.json, the pictures and index.html of measured points into the folder ``out``.

    With ``export``, write the chosen models there too. Nothing is written if an input or an option is refused;
    pareto.json comes last. Pictures of an earlier report that this one has not are removed.
    """
    if not inputs:
        raise ResultsError("No results were given.", "Give results.json of rsoup eval, a CSV or a printed block.")
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out}: is a file, not a folder.", "Give a folder with -o.")
    if (out / PAGE).exists() and not (out / FIGURES).exists():
        raise ResultsError(f"{out / PAGE}: is there, and no report's.", "Give another folder with -o.")
    foreign = next((file for file in OF_MODELS if (out / file).exists()), None)
    if foreign is not None and not (out / FIGURES).exists():
        raise ResultsError(
            f"{out}: is the folder of a model or an adapter ({foreign}).", "Give another folder with -o."
        )
    measured = read_inputs(list(inputs), options.objectives, options.where, options.minimize)
    report = analyse(measured, options)
    page = render_page(report, measured.texts)
    soups = {} if export is None else chosen_soups(report, export)
    try:
        _write(report, page, out)
    except OSError as problem:
        raise ResultsError(
            f"{out}: cannot be written ({reason_of(problem)}).", "Give another folder with -o."
        ) from problem
    for folder, soup in soups.items():
        mixing.write(soup, folder)
    return report


def _write(report: Report, page: str, out: Path) -> None:
    """Put the files of a report into ``out`` once all of them are drawn: pictures, the page, and last the figures."""
    out.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out / "report") as partial:
        draw_pictures(report, partial)
        drawn = sorted(file.name for file in partial.iterdir())
        write_text(partial / PAGE, page)
        write_json(partial / FIGURES, report.model_dump(mode="json", by_alias=True))
        files = (*drawn, PAGE, FIGURES)
        if any((out / file).is_dir() for file in files):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for file in files:
            (partial / file).replace(out / file)
        for file in PICTURE_FILES.difference(drawn):
            (out / file).unlink(missing_ok=True)
