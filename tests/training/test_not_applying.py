"""Rewards that do not apply to a completion: no algorithm makes a score of them, and no gradient comes from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsoup.errors import RewardError
from rsoup.progress import Silent
from rsoup.recipe import PPOSection
from rsoup.rewards.functions import Function, TrainerState
from rsoup.training.loop import Objective, train
from rsoup.training.scores import Running, objective_scores
from rsoup.training.team import Team
from rsoup.training.trl_backend import train_with_trl
from rsoup.training.trl_settings import trainer_settings

from .directly import GENERATION, GROUP, PROMPTS, make_examples, make_policy, one_step


def early(completions: list[str], log_metric: Any) -> list[float | None]:
    """Return the place in the alphabet, None beyond the half of it."""
    log_metric("texts", len(completions))
    return [float(ord(text[0]) - ord("a")) if text[:1] < "l" else None for text in completions]


def long(completions: list[str], trainer_state: Any) -> list[float | None]:
    return [None if len(text) < 12 else float(len(text)) + trainer_state.max_steps for text in completions]


def nothing(completions: list[str]) -> list[None]:
    return [None] * len(completions)


def one_round(folder: Path, model: Path, algo: str, scorers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Train for a step on equal weights; return the line of metrics."""
    ppo = PPOSection(epochs=1, kl_coef=0.0)
    (train if algo == "ppo" else train_with_trl)(
        policy := make_policy(model),
        make_examples(policy),
        Objective({name: Function(call) for name, call in scorers.items()}, dict.fromkeys(scorers, 1.0)),
        one_step(algo, **{"ppo": ppo, **settings}),
        GENERATION,
        seed=0,
        folder=folder,
        fingerprint="",
        progress=Silent(),
        team=Team(),
    )
    line: dict[str, Any] = json.loads((folder / "metrics.jsonl").read_text())
    return line


@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo"])
def test_a_training_on_what_never_applies_is_refused(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    with pytest.raises(RewardError, match="nothing gave None for every completion of 1 step: nothing can be learnt"):
        one_round(tmp_path, tiny_model, algo, {"nothing": nothing})
    assert not (tmp_path / "metrics.jsonl").read_text()
    found = one_round(tmp_path, tiny_model, algo, {"nothing": nothing, "early": early})
    assert found["scores"]["nothing"] is None
    assert found["scored"]["nothing"] == 0 < found["scored"]["early"]


@pytest.mark.parametrize("scaling", ["raw", "running", "normalize_then_sum"])
def test_every_algorithm_makes_the_same_of_the_same_scores(tmp_path: Path, tiny_model: Path, scaling: str) -> None:
    """Each samples its own completions; what all make of them is one function of the scores."""
    for algo in ("ppo", "grpo", "rloo"):
        texts: list[str] = []

        def seen(completions: list[str], texts: list[str] = texts) -> list[float]:
            texts.extend(completions)
            return [float(text.count("e")) for text in completions]

        scorers = {"early": early, "long": long, "seen": seen}
        line = one_round(tmp_path / algo, tiny_model, algo, scorers, score_scaling=scaling)
        values = {
            "early": early(texts, lambda *_: None),
            "long": long(texts, TrainerState(0, 1)),
            "seen": [float(text.count("e")) for text in texts],
        }
        scores = {name: np.array(own, dtype=np.float64) for name, own in values.items()}  # None becomes NaN
        known = {name: own[~np.isnan(own)] for name, own in scores.items()}
        assert line["scored"] == {name: len(own) for name, own in known.items()}
        assert 0 < line["scored"]["early"] < PROMPTS * GROUP
        assert line["scores"] == {name: pytest.approx(own.mean()) if len(own) else None for name, own in known.items()}
        assert line["logged"] == {"early/texts": PROMPTS * GROUP}
        running = {name: Running().with_batch(own) for name, own in scores.items()}
        section = one_step(algo, score_scaling=scaling)
        expected = objective_scores(scores, dict.fromkeys(scores, 1.0), running, section)
        assert line["reward"] == pytest.approx(np.nanmean(expected), abs=1e-6)


def test_gdpo_is_the_batch_scale_of_groups_that_were_normalised() -> None:
    """The advantages of TRL's normalize_then_sum, by its formula, and those it makes of what it is given here."""
    section = one_step("grpo", score_scaling="normalize_then_sum")
    assert trainer_settings(section, GENERATION, 1)["scale_rewards"] == "batch"
    scores = torch.tensor([[1.0, 30.0], [2.0, 10.0], [4.0, 20.0], [3.0, 3.0], [3.0, 1.0], [1.0, 2.0]])
    grouped = scores.view(PROMPTS, GROUP, 2)
    normal = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    summed = (normal.view(-1, 2) * 0.5).sum(1)
    trls = (summed - summed.mean()) / (summed.std() + 1e-4)
    own = {"a": scores[:, 0].double().numpy(), "b": scores[:, 1].double().numpy()}
    rewards = torch.from_numpy(objective_scores(own, {"a": 1.0, "b": 1.0}, {}, section))
    groups = rewards.view(PROMPTS, GROUP)
    ours = (groups - groups.mean(1, keepdim=True)).flatten() / (rewards.std() + 1e-4)
    torch.testing.assert_close(ours, trls.double(), rtol=1e-4, atol=1e-5)


def test_a_completion_that_nothing_applies_to_gives_ppo_no_gradient(tiny_model: Path) -> None:
    """The gradient of a rollout with such completions is that of the rollout without them."""
    from rsoup.models.sampling import generator_for
    from rsoup.training.passes import alone
    from rsoup.training.rollout import collect, draw_numbers
    from rsoup.training.update import update

    training = one_step("ppo", ppo=PPOSection(epochs=1, kl_coef=0.1))
    found = []
    for keep in (slice(0, PROMPTS), slice(0, 1)):  # the second prompt's completions: NaN, or left out
        policy = make_policy(tiny_model)
        examples = make_examples(policy)[:PROMPTS]
        draws = draw_numbers(training, GENERATION, generator_for(0, "sampling", 0))
        prompts = torch.arange(PROMPTS)[keep]
        scorers = {"long": Function(lambda completions: [float(len(text)) for text in completions])}
        team = Team()
        rollout = alone(collect(policy, examples[keep], scorers, training, GENERATION, draws.of(prompts)), team)
        rewards = torch.from_numpy(rollout.scores["long"])
        if len(rewards) > GROUP:
            rewards[GROUP:] = math.nan
        alone(update(policy, torch.optim.SGD(policy.parameters, lr=0.0), rollout, rewards, training, 0.1, team), team)
        found.append([parameter.grad for parameter in policy.parameters if parameter.grad is not None])
    assert any(gradient.any() for gradient in found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
