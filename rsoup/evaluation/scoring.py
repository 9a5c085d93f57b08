"""Score the completions of a point; what was scored before is not scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup.evaluation.cache import Kept
from rsoup.evaluation.records import Floats
from rsoup.files import sha256_json
from rsoup.models.load import pick_device
from rsoup.recipe import RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import Scorer, make_scorer, score_each


class Judges:
    """The rewards of a sweep; each is loaded when the first completion needs it."""

    def __init__(self, rewards: Mapping[str, RewardSection]) -> None:
        self._rewards = rewards
        self._identities = {
            name: sha256_json(reward_identity(name, own, pick_device().type)) for name, own in rewards.items()
        }
        self._scorers: dict[str, Scorer] = {}

    def scores(self, kept: Kept, samples: Sequence[Sample]) -> dict[str, Floats]:
        """Return the score of each sample on every reward: (n,) each.

        Raise RewardError for the first completion that a reward fails on, after keeping the scores of all others.
        """
        return {name: self._scores(name, kept, samples) for name in self._rewards}

    def _scores(self, name: str, kept: Kept, samples: Sequence[Sample]) -> Floats:
        identity = self._identities[name]
        known = kept.scores(identity)
        keys = [sample.key() for sample in samples]
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
        if missing:
            if name not in self._scorers:
                self._scorers[name] = make_scorer(name, self._rewards[name])
            found, problem = score_each(name, self._scorers[name], list(missing.values()))
            known |= {key: value for key, value in zip(missing, found.tolist(), strict=True) if not math.isnan(value)}
            kept.keep_scores(identity, known)
            if problem is not None:
                raise problem
        return np.array([known[key] for key in keys])
