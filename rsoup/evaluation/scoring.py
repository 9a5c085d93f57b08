"""Score the completions of a point; what was scored before is not scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup.errors import RewardError
from rsoup.evaluation.cache import Kept
from rsoup.evaluation.records import Floats
from rsoup.files import sha256_json
from rsoup.recipe import RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.functions import check_functions
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import Scorer, make_scorer, score_each


class Judges:
    """The rewards of a sweep; each is loaded when the first completion needs it."""

    def __init__(self, rewards: Mapping[str, RewardSection]) -> None:
        self._rewards = rewards
        self._identities = {name: sha256_json(reward_identity(name, own)) for name, own in rewards.items()}
        self._scorers: dict[str, Scorer] = {}

    def check_parameters(self, rows: Sequence[Sample]) -> None:
        """Refuse functions that need what no column of the rows gives."""
        functions = [self._scorer(name) for name, own in self._rewards.items() if own.function is not None]
        check_functions(functions, rows)

    def scores(self, kept: Kept, samples: Sequence[Sample]) -> dict[str, Floats]:
        """Return the score of each sample on every reward, NaN where it does not apply: (n,) each.

        Raise RewardError for the first completion that a reward fails on, after keeping the scores of all others, and
        for a reward that applies to none.
        """
        return {name: self._scores(name, kept, samples) for name in self._rewards}

    def _scores(self, name: str, kept: Kept, samples: Sequence[Sample]) -> Floats:
        identity = self._identities[name]
        known = kept.scores(identity)
        keys = [sample.key() for sample in samples]
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
        if missing:
            found = score_each(name, self._scorer(name), list(missing.values()))
            for key, value, failed in zip(missing, found.scores.tolist(), found.failed, strict=True):
                if not failed:
                    known[key] = None if math.isnan(value) else value
            kept.keep_scores(identity, known)
            if found.problem is not None:
                raise found.problem
        scores: Floats = np.array([known[key] for key in keys], dtype=np.float64)
        if np.isnan(scores).all():
            raise RewardError(
                f"The reward {name} applies to none of the {len(scores)} completions: it gave None for each.",
                "Give the rows what it reads (a reference answer: task.reference), or leave the reward out.",
            )
        return scores

    def _scorer(self, name: str) -> Scorer:
        if name not in self._scorers:
            self._scorers[name] = make_scorer(name, self._rewards[name])
        return self._scorers[name]
