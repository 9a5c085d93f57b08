"""Read whatever a report can be made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from rsoup.errors import ResultsError, did_you_mean
from rsoup.report.inputs.lmeval import is_lm_eval, read_lm_eval
from rsoup.report.inputs.origins import starts_of
from rsoup.report.inputs.printed import read_printed
from rsoup.report.inputs.runs import read_runs
from rsoup.report.inputs.table import read_table
from rsoup.report.measured import Measured


def read_inputs(
    paths: list[Path], objectives: Mapping[str, str], where: Mapping[str, str], minimize: Collection[str] = ()
) -> Measured:
    """Read results files (several are pooled over seeds), one CSV of points, results of lm-eval, or a printed block.

    Lower scores of the rewards ``minimize`` are better, whatever the input says.
    """
    measured = _read(paths, objectives, where, minimize)
    for name in minimize:
        if name not in measured.rewards:
            raise ResultsError(
                f"--minimize: {name!r} is no reward of these points.", did_you_mean(name, measured.rewards)
            )
    return replace(measured, starts=starts_of(measured.adapters))


def _read(
    paths: list[Path], objectives: Mapping[str, str], where: Mapping[str, str], minimize: Collection[str]
) -> Measured:
    tables = [path for path in paths if path.suffix.lower() in (".csv", ".tsv")]
    others = [path for path in paths if path not in tables]
    from_lm_eval = [path for path in others if is_lm_eval(path)]
    if from_lm_eval:
        _refuse_beside(from_lm_eval, others, tables, where)
        return read_lm_eval(others, next(iter(tables), None), objectives, minimize)
    if all(path.is_dir() or path.suffix.lower() == ".json" for path in paths):
        if where:
            raise ResultsError("--where chooses rows of a CSV.", "Leave it out.")
        return read_runs(paths, objectives, minimize)
    if len(paths) > 1:
        raise ResultsError(
            f"{len(paths)} inputs, not all of them results files: only results of rsoup eval are pooled.",
            "Give results files, or one CSV, or results of lm-eval, or one printed block.",
        )
    if paths[0].suffix.lower() in (".csv", ".tsv"):
        return read_table(paths[0], objectives, where, minimize)
    if where:
        raise ResultsError("--where chooses rows of a CSV.", "Leave it out.")
    return read_printed(paths[0], objectives, minimize)


def _refuse_beside(from_lm_eval: list[Path], others: list[Path], tables: list[Path], where: Mapping[str, str]) -> None:
    """Refuse what cannot stand beside results of lm-eval."""
    if where:
        raise ResultsError("--where chooses rows of a CSV, and there are results of lm-eval.", "Leave it out.")
    odd = next((path for path in others if path not in from_lm_eval), None)
    if odd is not None:
        raise ResultsError(
            f"{from_lm_eval[0]}: is a result of lm-eval, and {odd} is none.",
            "Give results of lm-eval alone, or with one CSV that says what their models are.",
        )
    if len(tables) > 1:
        raise ResultsError(
            f"{tables[0]} and {tables[1]}: one CSV says what the models of lm-eval are.", "Put their rows into one."
        )
