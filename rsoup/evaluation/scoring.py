"""Score the completions of a point; what was scored before is not scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup.evaluation.cache import Completion, Kept
from rsoup.evaluation.records import Floats
from rsoup.files import sha256_json
from rsoup.recipe import RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.scoring import Scorer, make_scorer, score_each
from rsoup.tasks.loading import Example

Read = tuple[str, str]
"""A post and a response to it, as a reward reads them."""


def what_rewards_read(example: Example, completion: Completion) -> Read:
    """Return the post and the response that every reward is given for a completion."""
    return example.post, completion.text


class Judges:
    """The rewards of a sweep; each is loaded when the first completion needs it."""

    def __init__(self, rewards: Mapping[str, RewardSection]) -> None:
        self._rewards = rewards
        self._identities = {name: sha256_json(reward_identity(name, own)) for name, own in rewards.items()}
        self._scorers: dict[str, Scorer] = {}

    def scores(self, kept: Kept, reads: Sequence[Read]) -> dict[str, Floats]:
        """Return the score of each (post, response) on every reward: (n,) each.

        Raise RewardError for the first completion that a reward fails on, after keeping the scores of all others.
        """
        return {name: self._scores(name, kept, reads) for name in self._rewards}

    def _scores(self, name: str, kept: Kept, reads: Sequence[Read]) -> Floats:
        identity = self._identities[name]
        known = kept.scores(identity)
        keys = [sha256_json(read)[:24] for read in reads]
        missing = {key: read for key, read in zip(keys, reads, strict=True) if key not in known}
        if missing:
            if name not in self._scorers:
                self._scorers[name] = make_scorer(name, self._rewards[name])
            posts, texts = zip(*missing.values(), strict=True)
            found, problem = score_each(name, self._scorers[name], posts, texts)
            known |= {key: value for key, value in zip(missing, found.tolist(), strict=True) if not math.isnan(value)}
            kept.keep_scores(identity, known)
            if problem is not None:
                raise problem
        return np.array([known[key] for key in keys])
