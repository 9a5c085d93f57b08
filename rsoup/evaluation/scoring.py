"""Score the completions of a point; what was scored before is not scored again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rsoup.errors import RewardError, see
from rsoup.evaluation.cache import Kept
from rsoup.evaluation.records import Floats
from rsoup.resolve import Reward
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import score_each


def score_or_recall(rewards: Mapping[str, Reward], kept: Kept, samples: Sequence[Sample]) -> dict[str, Floats]:
    """Return the score of each sample on every reward, NaN where it does not apply: (n,) each.

    A reward is loaded if a sample is new to it. Raise RewardError for the first completion that a reward fails on,
    after keeping the scores of all others, and for a reward that applies to none.
    """
    return {name: _scores(reward, kept, samples) for name, reward in rewards.items()}


def _scores(reward: Reward, kept: Kept, samples: Sequence[Sample]) -> Floats:
    known = kept.scores(reward.sha256)
    keys = [sample.key() for sample in samples]
    missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
    if missing:
        found = score_each(reward.name, reward.scorer, list(missing.values()))
        for key, value, failed in zip(missing, found.scores.tolist(), found.failed, strict=True):
            if not failed:
                known[key] = None if math.isnan(value) else value
        kept.keep_scores(reward.sha256, known)
        if found.problem is not None:
            raise found.problem
    scores: Floats = np.array([known[key] for key in keys], dtype=np.float64)
    if np.isnan(scores).all():
        raise RewardError(
            f"The reward {reward.name} applies to none of the {len(scores)} completions: it gave None for each.",
            "Give the rows what it reads (a reference answer: task.reference), or leave the reward out."
            + see("a-reward-applies-to-no-row"),
        )
    return scores
