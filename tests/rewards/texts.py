"""Score texts as a test writes them: posts and completions side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsoup.rewards.samples import plain_samples
from rsoup.rewards.scoring import Scorer, score


def score_texts(name: str, scorer: Scorer, posts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
    """Return the scores of completions of posts that have nothing beside them."""
    return score(name, scorer, plain_samples(posts, completions))
