"""Judges: language models that score by a rubric, at an endpoint or loaded here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rsoup.errors import ModelError, RewardError
from rsoup.recipe import RewardSection
from rsoup.recipe.judge import ASKED, SHARED_ANSWERS

if TYPE_CHECKING:
    from rsoup.rewards.judges.judge import Judge

WORDING = 1
"""Counts the wordings of the questions and the rules for answers: scores that were kept under others are not used."""


def make_judge(name: str, section: RewardSection) -> Judge:
    """Return what asks a judge; a model that is loaded here is loaded, an endpoint is not asked yet."""
    assert section.judge is not None
    if section.judge.base_url is not None:
        from rsoup.rewards.judges.endpoint import EndpointJudge

        return EndpointJudge(name, section.judge)
    from rsoup.rewards.judges.local import LocalJudge  # loads torch

    return LocalJudge(name, section)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Say of which reward a model is the judge, and that it might be meant to be at an endpoint, if it is not there."""
    try:
        yield
    except ModelError as problem:
        raise RewardError(
            f"The reward {name}: its judge {problem.message}",
            f"{problem.hint} A model at an endpoint needs the judge's base_url, such as https://api.openai.com/v1.",
        ) from problem


def judge_identity(name: str, section: RewardSection) -> dict[str, Any]:
    """Return what decides the scores of a judge; of a model that is loaded here, its files in the place of its name."""
    judge = section.judge
    assert judge is not None
    if judge.base_url is not None:
        return {**judge.model_dump(exclude=SHARED_ANSWERS), "wording": WORDING}
    from rsoup.models.load import model_sha256, settings_sha256  # loads torch

    own = judge.model_dump(exclude={*ASKED, "base_url", "model"})
    names = judge.model, section.revision
    with explained(name):
        return {**own, "wording": WORDING, "files": [model_sha256(*names), settings_sha256(*names)]}
