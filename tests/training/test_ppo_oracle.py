"""The formulas of PPO against what TRL's own PPO computed on the same batches (data/make_ppo_oracle.py made the files).

trl 0.4.7 has the PPO of the paper's code, 1.12.0 the last one that TRL had. Where conventions differ:

- Both divide the variance by n - 1 when they whiten advantages; rsoup divides by n. Advantages come out larger by
  sqrt(n / (n - 1)), which is 1.0004 for a step of 64 completions of 20 tokens.
- 0.4.7 whitens within each mini-batch, 1.12.0 and rsoup whiten over the whole batch.
- 1.12.0 puts the score of a completion that ends early on the position after its last token and gives that position a
  value; 0.4.7 and rsoup put it on the last token. With the mask of 1.12.0's values the formulas agree there too.
- 0.4.7 leaves out a mini-batch whose mean ratio exceeds 10; 1.12.0 has no adaptive KL coefficient.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from rsoup.recipe import PPOSection
from rsoup.training.algorithm import Losses, adapted_kl_coef, gae, ppo_losses, token_rewards, whiten

DATA = Path(__file__).parent / "data"
EXACT = {"rtol": 1e-6, "atol": 1e-6}
LOSSES = {"policy_loss": "policy", "value_loss": "value", "clipped": "clipped", "clipped_value": "clipped_value"}


def read(version: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / f"ppo_trl_{version}.json").read_text())
    return content


def tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    found = {name: torch.tensor(values) for name, values in content.items()}
    return {name: values.bool() if "mask" in name else values for name, values in found.items()}


def section(settings: dict[str, float]) -> PPOSection:
    keys = {"lam": "gae_lambda"}
    return PPOSection(**{keys.get(key, key): value for key, value in settings.items()})


def whitened_by_trl(advantages: Tensor, mask: Tensor) -> Tensor:
    """Return rsoup's whitened advantages, scaled to the variance with n - 1 that TRL takes."""
    count = mask.sum()
    return whiten(advantages, mask) * ((count - 1) / count).sqrt()


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return read("0.4.7")


@pytest.fixture(scope="module")
def last() -> dict[str, Any]:
    return read("1.12.0")


def test_the_original_gives_the_same_rewards_advantages_and_losses(original: dict[str, Any]) -> None:
    ppo, batch, after = section(original["settings"]), tensors(original["inputs"]), tensors(original["update"])
    expected, mask = tensors(original["outputs"]), batch["mask"]
    rewards = token_rewards(batch["scores"], batch["logprobs"], batch["ref_logprobs"], mask, ppo.kl_coef)
    torch.testing.assert_close(rewards, expected["rewards"] * mask, **EXACT)
    advantages = gae(rewards, batch["values"], mask, ppo.gamma, ppo.gae_lambda)
    whitened = whitened_by_trl(advantages, mask)
    torch.testing.assert_close(whitened * mask, expected["whitened_advantages"] * mask, **EXACT)
    losses = ppo_losses(
        after["new_logprobs"],
        after["new_values"],
        batch["logprobs"],
        batch["values"],
        whitened,
        advantages + batch["values"],
        mask,
        ppo,
    )
    for theirs, ours in LOSSES.items():
        torch.testing.assert_close(getattr(losses, ours), expected[theirs], **EXACT)
    torch.testing.assert_close(losses.total(ppo), expected["total_loss"], **EXACT)
    assert 0.1 < losses.clipped < 0.9
    assert 0.1 < losses.clipped_value < 0.9


def test_the_original_adapts_the_kl_coefficient_alike(original: dict[str, Any]) -> None:
    told = original["controller"]
    ppo = PPOSection(kl_coef=told["first"], kl_target=told["target"], kl_horizon=float(told["horizon"]))
    coefficient = told["first"]
    for kl, then in zip(told["kls"], told["then"], strict=True):
        coefficient = adapted_kl_coef(coefficient, kl, told["completions"], ppo)
        assert coefficient == pytest.approx(then, rel=1e-12)


def last_advantages(content: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return the batch of trl 1.12, its mask with a position more per completion, and rsoup's advantages on it."""
    ppo, batch = section(content["settings"]), tensors(content["inputs"])
    longer = torch.cat([torch.ones_like(batch["mask"][:, :1]), batch["mask"][:, :-1]], dim=1)
    mask = batch["mask"]
    same = torch.where(mask, batch["logprobs"] - batch["ref_logprobs"], 0.0)
    rewards = token_rewards(batch["scores"], same, torch.zeros_like(same), longer, ppo.kl_coef)
    return batch, longer, gae(rewards, batch["values"], longer, ppo.gamma, ppo.gae_lambda)


def test_the_last_one_gives_the_same_advantages(last: dict[str, Any]) -> None:
    batch, _, advantages = last_advantages(last)
    expected, mask = tensors(last["outputs"]), batch["mask"]
    assert set(mask.all(-1).tolist()) == {True, False}  # some completions end early
    torch.testing.assert_close(advantages * mask, expected["advantages"] * mask, **EXACT)
    whitened = whitened_by_trl(advantages, mask)
    torch.testing.assert_close(whitened * mask, expected["whitened_advantages"] * mask, **EXACT)


def test_the_last_one_gives_the_same_losses_in_every_optimiser_step(last: dict[str, Any]) -> None:
    ppo = section(last["settings"])
    batch, longer, advantages = last_advantages(last)
    returns, whitened = advantages + batch["values"] * longer, whitened_by_trl(advantages, batch["mask"])
    steps: list[tuple[float, float, float]] = []
    for update in map(tensors, last["updates"]):
        rows = update["rows"]
        assert torch.equal(longer[rows], update["value_mask"])

        def losses(mask: Tensor, update: dict[str, Tensor] = update, rows: Tensor = rows) -> Losses:
            return ppo_losses(
                update["new_logprobs"],
                update["new_values"],
                batch["logprobs"][rows],
                batch["values"][rows],
                whitened[rows],
                returns[rows],
                mask[rows],
                ppo,
            )

        policy, value = losses(batch["mask"]), losses(longer)
        torch.testing.assert_close(policy.policy, update["policy_loss"], **EXACT)
        torch.testing.assert_close(policy.clipped, update["clipped"], **EXACT)
        torch.testing.assert_close(value.value, update["value_error"] / 2, **EXACT)
        torch.testing.assert_close(value.clipped_value, update["clipped_value"], **EXACT)
        steps.append((float(policy.policy), float(value.value), float(policy.clipped)))
    policy_losses, value_losses, clipped_shares = zip(*steps, strict=True)
    assert fmean(policy_losses) == pytest.approx(last["logged"]["policy"], rel=1e-5, abs=1e-6)
    assert fmean(value_losses) == pytest.approx(last["logged"]["value"], rel=1e-5)
    assert clipped_shares[0] == 0.0  # the ratio is 1 in the first step
    assert max(clipped_shares) > 0.2
