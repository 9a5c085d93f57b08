"""What the terminal shows: progress on stderr, tables and paths on stdout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from rsoup.errors import RsoupError

if TYPE_CHECKING:
    from rsoup.evaluation.results import Results, Score
    from rsoup.report import Report
    from rsoup.report.schema import ScoreEstimate, Volume

FOLLOWS = os.environ.get("RANK", "0") != "0"
"""Whether this is one of several processes and another one speaks for all."""

out = Console(highlight=False, emoji=False, quiet=FOLLOWS)
err = Console(stderr=True, highlight=False, emoji=False)


def show_error(problem: RsoupError) -> None:
    """Print one line what is wrong and one line what to do."""
    message, hint = (escape(" ".join(text.split())) for text in (problem.message, problem.hint))
    err.print(f"[bold red]error:[/] {message}", soft_wrap=True)
    err.print(f"[bold]try:[/]   {hint}", soft_wrap=True)


def say(text: str) -> None:
    """Print a remark to stderr."""
    if not FOLLOWS:
        err.print(escape(text), soft_wrap=True)


class Bars:
    """Draws a bar for each stage with the time left; the bars of finished stages stay."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *problem: object) -> None:
        self.finish()  # an error finds the terminal as it was, with its cursor

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin a bar."""
        self._bar = Progress(
            TextColumn(f"{escape(stage):<14}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            _TimeColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=err,
            expand=True,
            speed_estimate_period=600,
            refresh_per_second=1,  # drawing takes a core from the computation
            disable=FOLLOWS,
        )
        self._task = self._bar.add_task(stage, total=total, completed=done, note="")
        self._bar.start()

    def advance(self, note: str = "") -> None:
        """Move the bar on by a unit."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=escape(note))

    def finish(self) -> None:
        """Leave the finished bar standing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print a remark above the bar."""
        say(text)


class _TimeColumn(ProgressColumn):
    """The time left of a running stage, the time taken by a finished one."""

    def render(self, task: Task) -> Text:
        seconds = task.elapsed if task.finished else task.time_remaining
        shown = "--:--" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        return Text(f"took {shown}" if task.finished else f"{shown} left")


def results_table(results: Results, timing: Mapping[str, float]) -> Table:
    """Return the table of an evaluation: a row per point, every reward with its standard error.

    The milliseconds per token are shown where baselines are compared that take more of them.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    line = any(point.lam is not None for point in results.points)
    costs = any("passes_per_token" in point.extras for point in results.points) and bool(timing)
    extras = {"tokens": ("completion_tokens", 1), "KL": ("kl", 2)}
    extras = {title: own for title, own in extras.items() if any(own[0] in point.extras for point in results.points)}
    table.add_column("lambda" if line else "point")
    for title in [*results.rewards, *extras, *(["ms/token"] if costs else [])]:
        table.add_column(title, justify="right")
    if line:
        table.add_column("model", overflow="fold")
    for point in results.points:
        cells = [_score(point.scores[reward]) for reward in results.rewards]
        cells += [f"{point.extras[name]:.{n}f}" if name in point.extras else "" for name, n in extras.values()]
        cells += [f"{timing.get(point.id, 0.0):.1f}"] if costs else []
        first = "" if point.lam is None else f"{point.lam:.2f}"
        table.add_row(*([first, *cells, escape(point.id)] if line else [escape(point.id), *cells]))
    return table


def _score(score: Score) -> str:
    return f"{score.mean:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")


def show_report(report: Report) -> None:
    """Print the front, the hypervolumes and the verdicts of a report."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("point")
    for reward in report.rewards:
        table.add_column(reward, justify="right")
    table.add_column("front")
    for point in report.points:
        scores = [_interval(point.scores[reward]) for reward in report.rewards]
        front = "" if not point.on_front else "yes"
        if point.on_front and point.front_probability is not None:
            front = f"yes ({point.front_probability:.0%})"
        table.add_row(escape(point.id), *scores, front)
    out.print(table)
    for title, lines in _summary(report).items():
        out.print(f"\n[bold]{escape(title)}[/]")
        for line in lines:
            out.print(f"  {line}", markup=False, soft_wrap=True)
    out.print()
    for note in report.notes:
        say(f"note: {note}")


def _summary(report: Report) -> dict[str, list[str]]:
    """Return the lines under the table, by heading."""
    volumes = report.hypervolume
    reference = next(iter(volumes.values())).reference_point if volumes else {}
    above = ", ".join(f"{name} {value:.3f}" for name, value in reference.items())
    lines = {f"hypervolume above {above}": [_volume(kind, volume) for kind, volume in volumes.items()]}
    titles = {"lmc": "linear mode connectivity", "coverage": "Pareto coverage"}
    for name, hypothesis in report.hypotheses.items():
        lines[f"{titles[name]}: {hypothesis.verdict}"] = [hypothesis.words]
    for choice in report.choices:
        lines[f"chosen by {choice.rule}"] = [choice.words, choice.command]
    return lines


def _volume(kind: str, volume: Volume) -> str:
    interval = f" [{volume.interval[0]:.4f}, {volume.interval[1]:.4f}]" if volume.interval else ""
    return f"{kind:<7}{volume.value:.4f}{interval}"


def _interval(score: ScoreEstimate) -> str:
    return f"{score.mean:.3f}" + (f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" if score.interval else "")
