"""Score the completions of a point; what was scored before is not scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup.evaluation.cache import Kept
from rsoup.evaluation.records import Floats
from rsoup.resolve import Reward
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import score_each


def score_or_recall(rewards: Mapping[str, Reward], kept: Kept, samples: Sequence[Sample]) -> dict[str, Floats]:
    """Return the score of each sample on every reward: (n,) each; a reward is loaded if a sample is new to it.

    Raise RewardError for the first completion that a reward fails on, after keeping the scores of all others.
    """
    return {name: _scores(reward, kept, samples) for name, reward in rewards.items()}


def _scores(reward: Reward, kept: Kept, samples: Sequence[Sample]) -> Floats:
    known = kept.scores(reward.sha256)
    keys = [sample.key() for sample in samples]
    missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
    if missing:
        found, problem = score_each(reward.name, reward.scorer, list(missing.values()))
        known |= {key: value for key, value in zip(missing, found.tolist(), strict=True) if not math.isnan(value)}
        kept.keep_scores(reward.sha256, known)
        if problem is not None:
            raise problem
    return np.array([known[key] for key in keys])
