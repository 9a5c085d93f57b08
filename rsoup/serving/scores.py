"""Score single answers by the rewards of a run."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from rsoup.errors import RsoupError
from rsoup.recipe import Recipe
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import Scorer, make_scorer, score_all
from rsoup.serving.errors import RequestError
from rsoup.tasks import resolve_task
from rsoup.tasks.responses import apply_rule


@dataclass(frozen=True)
class Grade:
    """What a reward makes of an answer: a finite score, None where it does not apply, or why it failed."""

    score: float | None
    problem: RsoupError | None = None


class Scores:
    """The rewards of a recipe, each loaded when the first answer is to be scored."""

    def __init__(self, recipe: Recipe | None) -> None:
        self._recipe = recipe
        self._scorers: dict[str, Scorer] = {}
        self._lock = threading.Lock()

    def each(self, post: str, completion: str) -> dict[str, Grade]:
        """Return what every reward makes of an answer to a post, as an evaluation reads it."""
        if self._recipe is None:
            raise RequestError(
                "There are no rewards: no run was given.", "Serve the folder of a run.", code="no_rewards"
            )
        text = apply_rule(completion.strip(), resolve_task(self._recipe.task).response)
        with self._lock:
            return {name: self._grade(self._recipe, name, Sample(post, text)) for name in self._recipe.rewards}

    def of(self, post: str, completion: str) -> dict[str, float]:
        """Return the scores of an answer, NaN where a reward does not apply; RequestError if one fails."""
        grades = self.each(post, completion)
        for grade in grades.values():
            if grade.problem is not None:
                problem = grade.problem
                raise RequestError(problem.message, problem.hint, param="completion", code="reward_failed") from problem
        return {name: math.nan if grade.score is None else grade.score for name, grade in grades.items()}

    def _grade(self, recipe: Recipe, name: str, sample: Sample) -> Grade:
        try:
            if name not in self._scorers:
                self._scorers[name] = make_scorer(name, recipe.rewards[name])
            score = float(score_all({name: self._scorers[name]}, [sample])[name][0])
        except RsoupError as problem:
            return Grade(None, problem)
        return Grade(None if math.isnan(score) else score)
