"""Score single answers by the rewards of a run."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

from rsoup.errors import RewardError
from rsoup.recipe import Recipe
from rsoup.rewards.functions import Function
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import Scorer, make_scorers, score
from rsoup.serving.errors import RequestError
from rsoup.tasks import resolve_task
from rsoup.tasks.responses import apply_rule


@dataclass(frozen=True)
class Scored:
    """The scores of an answer, None where a reward does not apply to it; and why other rewards have none.

    ``lacking`` has the column of the data that a reward needs, and an answer given live has not.
    """

    scores: dict[str, float | None]
    failed: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


class Scores:
    """The rewards of a recipe, loaded when the first answer is to be scored."""

    def __init__(self, recipe: Recipe | None) -> None:
        self._recipe = recipe
        self._scorers: dict[str, Scorer] | None = None
        self._lock = threading.Lock()

    def of(self, prompt: str, completion: str) -> Scored:
        """Return what every reward makes of an answer, as an evaluation reads it; RequestError if all fail."""
        if self._recipe is None:
            raise RequestError(
                "There are no rewards: no run was given.", "Serve the folder of a run.", code="no_rewards"
            )
        text = apply_rule(completion.strip(), resolve_task(self._recipe.task).response)
        with self._lock:
            if self._scorers is None:
                self._scorers = make_scorers(self._recipe.rewards)
            scored = Scored({})
            for name, scorer in self._scorers.items():
                if (column := _column_of(scorer)) is not None:
                    scored.lacking[name] = column
                    continue
                try:
                    value = float(score(name, scorer, [Sample(prompt, text)])[0])
                except RewardError as problem:
                    scored.failed[name] = problem.message
                else:
                    scored.scores[name] = None if math.isnan(value) else value
        if scored.failed and not scored.scores and not scored.lacking:
            raise RequestError(
                next(iter(scored.failed.values())),
                "An answer given live has a prompt and a completion, and no columns of the data.",
                param="completion",
                code="reward_failed",
            )
        return scored


def _column_of(scorer: Scorer) -> str | None:
    """Return the first column of the data that a function needs, None if it needs none."""
    if not isinstance(scorer, Function):
        return None
    needed = [*scorer.columns.values(), *scorer.parameters.missing(set(scorer.columns))]
    return next(iter(needed), None)
