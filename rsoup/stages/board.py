"""How far all stages are, in one view."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rsoup.progress import Progress
from rsoup.stages.graph import Stage
from rsoup.stages.told import News


class Board:
    """Shows a bar for each training and one for each run's points; says every remark of workers once."""

    def __init__(self, progress: Progress, stages: Sequence[Stage], prompts: int = 0) -> None:
        self._progress, self._prompts = progress, prompts
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._points = {stage.name: stage for stage in stages if stage.kind == "point"}
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def news(self, stage: Stage, news: News) -> None:
        """Show how far a stage is, and what was said in it."""
        with self._lock:
            for text in news.said:
                self._say_once(text, stage)
            if stage.kind == "training" and news.total:
                self._totals[stage.name] = news.total
                self._progress.show(title(stage), news.total, news.done, news.note)
            elif stage.kind == "point":
                self._done[stage.name] = max(self._done.get(stage.name, 0), min(news.done, self._prompts))
                self._show_points(stage, news.note)

    def done(self, stage: Stage) -> None:
        """Show that a stage is done."""
        with self._lock:
            if stage.kind == "point":
                self._done[stage.name] = self._prompts
                self._show_points(stage, "")
            elif stage.name in self._totals:
                self._progress.show(title(stage), self._totals[stage.name], self._totals[stage.name])

    def say(self, text: str) -> None:
        """Say what concerns no stage."""
        with self._lock:
            self._progress.say(text)

    def _say_once(self, text: str, stage: Stage) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.say(f"{title(stage)}: {text}" if stage.kind == "training" else text)

    def _show_points(self, stage: Stage, note: str) -> None:
        beside = [name for name, own in self._points.items() if own.run == stage.run]
        done = sum(self._done.get(name, 0) for name in beside)
        self._progress.show(title(stage), self._prompts * len(beside), done, note)


def title(stage: Stage) -> str:
    """Return what a stage is called in a view: the adapter, or the evaluation it is part of, with its seed."""
    return stage.name.partition("/points/")[0].replace("adapters/", "")
