"""What the terminal shows: progress on stderr, tables and paths on stdout."""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
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
    from rsoup.report.schema import Against, Choice, Cost, Estimate, ScoreEstimate, Volume

MOST_DIGITS = 8
SPREAD = "± is one standard error, [ ] a 95 % interval."
COMMAND = re.compile(r"\s*(?:\w+ {2,})?(?:rsoup|pip) ")
"""A line to copy, which stays one line."""
GAP = re.compile(r"\s*\S+(?: \S+)* {2,}")
FOLLOWS = os.environ.get("RANK", "0") != "0"
"""Whether this is one of several processes and another one speaks for all."""

out = Console(highlight=False, emoji=False, quiet=FOLLOWS)
err = Console(stderr=True, highlight=False, emoji=False)


def show_error(problem: RsoupError) -> None:
    """Print one line what is wrong and one line what to do."""
    message, hint = (" ".join(text.split()) for text in (problem.message, problem.hint))
    for look, head, text in (("bold red", "error:", message), ("bold", "try:  ", hint)):
        rest = escape(folded(f"{head} {text}", err, indent=7).removeprefix(head))
        err.print(f"[{look}]{head.strip()}[/]{head[len(head.strip()) :]}{rest}", soft_wrap=True)


def say(text: str) -> None:
    """Print a remark to stderr."""
    if not FOLLOWS:
        err.print(escape(folded(text, err)), soft_wrap=True)


def tell(text: str, style: str | None = None) -> None:
    """Print a text to stdout."""
    out.print(folded(text, out), style=style, markup=False, soft_wrap=True)


def folded(text: str, console: Console, indent: int | None = None) -> str:
    """Return a text whose lines end between words on a terminal; elsewhere, and if it is a command, as it is.

    Lines that go on begin below the first word after a gap, or at ``indent``; a word longer than a line stays whole.
    """
    if not console.is_terminal:
        return text
    return "\n".join(part for line in text.split("\n") for part in _lines(line, console.width, indent))


def _lines(line: str, width: int, indent: int | None) -> list[str]:
    if len(line) <= width or COMMAND.match(line):
        return [line]
    gap = GAP.match(line)
    start = indent if indent is not None else gap.end() if gap else len(line) - len(line.lstrip())
    below = " " * (start if start <= width // 2 else 2)
    return textwrap.wrap(
        line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def warn(warnings: Sequence[str]) -> None:
    """Print warnings to stderr."""
    for warning in warnings:
        say(f"warning: {warning}")


class Bars:
    """Draws a bar for each stage with the time left; the bars of finished stages stay."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._beside: dict[str, TaskID] = {}
        self._task = TaskID(0)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *problem: object) -> None:
        self.finish()  # an error finds the terminal as it was, with its cursor

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin a bar."""
        self._bar = self._bars()
        self._task = self._bar.add_task(f"{stage:<14}", total=total, completed=done, note="")
        self._bar.start()

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        """Set the bar of a stage that runs beside others."""
        if self._bar is None:
            self._bar, self._beside = self._bars(), {}
            self._bar.start()
        if stage not in self._beside:
            self._beside[stage] = self._bar.add_task(f"{stage:<14}", total=total, note="")
        self._bar.update(self._beside[stage], total=total, completed=done, note=escape(note))

    def _bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
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

    def advance(self, note: str = "") -> None:
        """Move the bar on by a unit."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=escape(note))

    def skip(self, count: int) -> None:
        """Move the bar on by what was made elsewhere."""
        if self._bar is not None:
            self._bar.update(self._task, advance=count)

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
    lowered = results.minimized | {name for name, own in results.benchmarks.items() if own.lowered}
    heads = [
        f"{name} {_arrow(name in lowered)}" if lowered else name for name in (*results.rewards, *results.benchmarks)
    ]
    for title in [*heads, *extras, *(["ms/token"] if costs else [])]:
        table.add_column(title, justify="right")
    if line:
        table.add_column("model", overflow="fold")
    for point in results.points:
        cells = [_score(point.scores[reward]) for reward in results.rewards]
        cells += [_score(point.benchmarks[own.main]) for own in results.benchmarks.values()]
        cells += [f"{point.extras[name]:.{n}f}" if name in point.extras else "" for name, n in extras.values()]
        cells += [f"{timing.get(point.id, 0.0):.1f}"] if costs else []
        first = "" if point.lam is None else f"{point.lam:.2f}"
        table.add_row(*([first, *cells, escape(point.id)] if line else [escape(point.id), *cells]))
    return table


def _arrow(lower: bool) -> str:
    """Return which way a reward is better."""
    return "↓" if lower else "↑"


def _score(score: Score) -> str:
    return f"{score.mean:.3f}" + (f" ± {score.stderr:.3f}" if score.stderr is not None else "")


def show_report(report: Report) -> None:
    """Print the front, the hypervolumes and the verdicts of a report."""
    shown = (_interval, _error, _mean) if report.bootstrap is not None else (_error, _mean)
    out.print(_fitting([_points_table(report, show) for show in shown]))
    if report.bootstrap is not None or any(own.stderr for point in report.points for own in point.scores.values()):
        out.print(f"\n{SPREAD}", markup=False)
    if any(front.cost is not None for front in report.fronts):
        out.print("\n[bold]hypervolume of fronts against what their trainings took[/]")
        volumes = (_volume, _volume_error, _volume_alone) if report.bootstrap is not None else (_volume_alone,)
        out.print(_fitting([_cost_table(report, show) for show in volumes]))
    for title, lines in _summary(report).items():
        out.print(f"\n[bold]{escape(title)}[/]")
        for line in lines:
            tell(f"  {line}")
    out.print()
    for note in report.notes:
        say(f"note: {note}")


def _fitting(tables: Sequence[Table]) -> Table:
    """Return the first table that the terminal has room for, or the last one."""
    wide = out.options.update(max_width=10_000)
    return next((table for table in tables if out.measure(table, options=wide).maximum <= out.width), tables[-1])


def _points_table(report: Report, show: Callable[[ScoreEstimate, int], str]) -> Table:
    """Return the table of a report: a row per point, its scores as ``show`` writes them, its place on the front."""
    errors = any(score.stderr is not None for point in report.points for score in point.scores.values())
    told = " [95 %]" if show is _interval else " ±" if show is _error and errors else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("point", no_wrap=True)
    line = any(point.lam is not None for point in report.points)
    if line:
        table.add_column("lambda", justify="right")
    digits = {name: _digits([point.scores[name].mean for point in report.points]) for name in report.rewards}
    cells = {name: [show(point.scores[name], digits[name]) for point in report.points] for name in report.rewards}
    for reward, own in cells.items():
        way = f" {_arrow(reward in report.minimized)}" if report.minimized else ""
        header = f"{escape(reward)}{way}{escape(told)}"
        table.add_column(header, justify="right", min_width=max(map(len, own)), overflow="fold")
    table.add_column("front")
    for row, point in enumerate(report.points):
        scores = [own[row] for own in cells.values()]
        lam = ["" if point.lam is None else f"{point.lam:g}"] if line else []
        front = "" if not point.on_front else "yes"
        if point.on_front and point.front_probability is not None:
            front = f"yes ({point.front_probability:.0%})"
        table.add_row(escape(point.id), *lam, *scores, front)
    return table


def _cost_table(report: Report, show: Callable[[Volume | Estimate, int], str]) -> Table:
    """Return a row per front: its trainings, what they took, how much it dominates, and how far the soups lead."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("front", no_wrap=True)
    told = " [95 %]" if show is _volume else " ±" if show is _volume_error else ""
    told = told if report.bootstrap is not None else ""
    for title in ("trained", "steps", "k tokens", "minutes", f"volume{told}", f"soups' lead{told}"):
        table.add_column(title, justify="right", no_wrap=True)
    finest = _digits([0.0, *(front.hypervolume.value for front in report.fronts)])
    for front in report.fronts:
        cost = front.cost
        paid = ["", "", ""]
        if cost is not None:
            paid = [f"{cost.optimizer_steps:g}", f"{cost.tokens / 1000:.1f}", _minutes(cost)]
        lead = "" if front.soups_lead is None else show(front.soups_lead, finest)
        table.add_row(escape(front.name), str(len(front.trainings)), *paid, show(front.hypervolume, finest), lead)
    return table


def _minutes(cost: Cost) -> str:
    return "" if cost.seconds is None else f"{cost.seconds / 60:.1f}"


def _digits(values: Sequence[float]) -> int:
    """Return how many decimals tell a five-hundredth of the values' range apart."""
    span = max(values) - min(values)
    return min(MOST_DIGITS, max(0, 2 - math.floor(math.log10(span)))) if span > 0 else 3


def _summary(report: Report) -> dict[str, list[str]]:
    """Return the lines under the table, by heading."""
    volumes = report.hypervolume
    reference = next(iter(volumes.values())).reference_point if volumes else {}
    digits = {name: _digits([point.scores[name].mean for point in report.points]) for name in report.rewards}
    above = ", ".join(f"{name} {value:.{digits[name]}f}" for name, value in reference.items())
    finest = _digits([0.0, *(volume.value for volume in volumes.values())])
    width = max(map(len, volumes), default=0) + 1
    figures = [f"{kind:<{width}}{_volume(volume, finest)}" for kind, volume in volumes.items()]
    figures += _ratios(report)
    side = "from" if report.minimized else "above"
    lines = {f"hypervolume {side} {above}": figures}
    titles = {
        "lmc": "linear mode connectivity",
        "coverage": "Pareto coverage",
        "equal_cost": "Pareto coverage at equal cost",
    }
    for name, hypothesis in report.hypotheses.items():
        lines[f"{titles[name]}: {hypothesis.verdict}"] = [hypothesis.words]
    for choice in report.choices:
        scores = ", ".join(f"{name} {_interval(score, digits[name])}" for name, score in choice.scores.items())
        lines[title_of(choice)] = [choice.words, f"{choice.nearest}: {scores}", choice.command]
    return lines


def title_of(choice: Choice) -> str:
    """Return by what a model was chosen, and of the two for a preference, which one to take."""
    asked = ", ".join(f"{name} {weight:g}" for name, weight in choice.asked.items())
    if choice.rule == "validation":
        return f"recommended for {asked}"
    return f"for comparison, weights = {asked}" if choice.rule == "lambda = mu" else f"chosen by {choice.rule}"


def _ratios(report: Report) -> list[str]:
    """Say how the soups' hypervolume compares with MORL's: with the experts as its corners, and without them."""
    own = report.comparison
    fronts = {} if own is None else {"MORL and experts": own} if own.corners else {"MORL": own}
    told: dict[str, Against] = {**fronts, **({"MORL runs alone": own.runs_alone} if own and own.corners else {})}
    return [
        f"soups / {name}: {_volume(against.hypervolume_ratio, 2)}"
        for name, against in told.items()
        if against.hypervolume_ratio is not None
    ]


def _volume(volume: Volume | Estimate, digits: int) -> str:
    ends = [_rounded(end, digits) for end in volume.interval or ()]
    return _rounded(volume.value, digits) + (f" [{', '.join(ends)}]" if ends else "")


def _volume_error(volume: Volume | Estimate, digits: int) -> str:
    return _rounded(volume.value, digits) + ("" if volume.stderr is None else f" ± {_rounded(volume.stderr, digits)}")


def _volume_alone(volume: Volume | Estimate, digits: int) -> str:
    return _rounded(volume.value, digits)


def _rounded(value: float, digits: int) -> str:
    if digits >= MOST_DIGITS:  # rewards of tiny ranges span volumes of no decimals
        return f"{value:.3g}"
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _interval(score: ScoreEstimate, digits: int) -> str:
    interval = f" [{', '.join(f'{end:.{digits}f}' for end in score.interval)}]" if score.interval else ""
    return f"{score.mean:.{digits}f}{interval}"


def _mean(score: ScoreEstimate, digits: int) -> str:
    return f"{score.mean:.{digits}f}"


def _error(score: ScoreEstimate, digits: int) -> str:
    return f"{score.mean:.{digits}f}" + (f" ± {score.stderr:.{digits}f}" if score.stderr is not None else "")
