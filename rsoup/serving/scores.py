"""Score single answers by the rewards of a run."""

from __future__ import annotations

import threading

from rsoup.errors import RewardError
from rsoup.recipe import Recipe
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import Scorer, make_scorers, score_all
from rsoup.serving.errors import RequestError
from rsoup.tasks import resolve_task
from rsoup.tasks.responses import apply_rule


class Scores:
    """The rewards of a recipe, loaded when the first answer is to be scored."""

    def __init__(self, recipe: Recipe | None) -> None:
        self._recipe = recipe
        self._scorers: dict[str, Scorer] | None = None
        self._lock = threading.Lock()

    def of(self, prompt: str, completion: str) -> dict[str, float]:
        """Return the score of an answer on every reward, as an evaluation reads it."""
        if self._recipe is None:
            raise RequestError(
                "There are no rewards: no run was given.", "Serve the folder of a run.", code="no_rewards"
            )
        text = apply_rule(completion.strip(), resolve_task(self._recipe.task).response)
        with self._lock:
            if self._scorers is None:
                self._scorers = make_scorers(self._recipe.rewards)
            try:
                scores = score_all(self._scorers, [Sample(prompt, text)])
            except RewardError as problem:
                raise RequestError(problem.message, problem.hint, param="completion", code="reward_failed") from problem
        return {name: float(values[0]) for name, values in scores.items()}
