"""Bars and bands around scores: 95 % intervals where the input allows them, else standard errors."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.report.schema import Interval, Report, ReportPoint, ScoreEstimate

WITH_BARS = 100  # points of one look up to which bars can be told apart

Segment = tuple[tuple[float, float], tuple[float, float]]


def spread(score: ScoreEstimate) -> Interval | None:
    """Return the interval of a score; one standard error on both sides where there is no interval."""
    if score.interval is not None or score.stderr is None:
        return score.interval
    return score.mean - score.stderr, score.mean + score.stderr


def spread_word(report: Report) -> str:
    """Say what bars and bands are; nothing where there are none."""
    if report.bootstrap is not None:
        return f"{100 * report.bootstrap.level:g} % interval"
    scores = [score for point in report.points for score in point.scores.values()]
    return "± standard error" if any(score.stderr is not None for score in scores) else ""


def bars(points: Sequence[ReportPoint], first: str, second: str) -> list[Segment]:
    """Return the bars across and up of points of one look; none where they could not be told apart."""
    found: list[Segment] = []
    for point in points if len(points) <= WITH_BARS else ():
        x, y = point.scores[first], point.scores[second]
        across, up = spread(x), spread(y)
        if across is not None:
            found.append(((across[0], y.mean), (across[1], y.mean)))
        if up is not None:
            found.append(((x.mean, up[0]), (x.mean, up[1])))
    return found
