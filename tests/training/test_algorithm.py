"""The formulas of PPO against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rsoup.recipe import PPOSection
from rsoup.training.algorithm import adapted_kl_coef, gae, masked_mean, ppo_losses, token_rewards, whiten

PPO = PPOSection(cliprange=0.2, cliprange_value=0.5)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_rewards_are_the_kl_penalty_and_the_score_on_the_last_token() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -9.0]])
    ref_logprobs = torch.tensor([[-1.5, -2.0, -2.0], [-3.0, -1.0, 5.0]])
    rewards = token_rewards(torch.tensor([10.0, 20.0]), logprobs, ref_logprobs, MASK, kl_coef=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.0, 10.1], [-0.2, 20.0, 0.0]]))


def test_advantages_are_the_discounted_sum_of_errors() -> None:
    """With gamma 0.5 and lambda 0.5 the errors to come count 0.25 each step further away."""
    rewards = torch.tensor([[0.0, 0.0, 4.0]])
    values = torch.tensor([[1.0, 1.0, 3.0]])
    deltas = [0 + 0.5 * 1 - 1, 0 + 0.5 * 3 - 1, 4 - 3]
    assert deltas == [-0.5, 0.5, 1.0]
    expected = [-0.5 + 0.25 * (0.5 + 0.25 * 1.0), 0.5 + 0.25 * 1.0, 1.0]
    found = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=0.5, gae_lambda=0.5)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_with_lambda_one_an_advantage_is_the_return_less_the_value() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
    values = torch.tensor([[0.5, 1.5, 2.5], [1.0, 2.0, 77.0]])
    found = gae(rewards, values, MASK, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(found, torch.tensor([[6.5, 4.5, 1.5], [7.0, 3.0, 0.0]]))


def test_with_lambda_zero_an_advantage_is_the_error_of_one_step() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
    values = torch.tensor([[0.5, 1.5, 2.5], [1.0, 2.0, 77.0]])
    found = gae(rewards, values, MASK, gamma=1.0, gae_lambda=0.0)
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0, 1.5], [4.0, 3.0, 0.0]]))


@given(st.integers(1, 5), st.integers(0, 3), st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**6))
def test_what_lies_outside_the_mask_has_no_say(
    length: int, padding: int, gamma: float, gae_lambda: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(1, length, generator=generator), torch.randn(1, length, generator=generator)
    mask = torch.ones(1, length, dtype=torch.bool)
    plain = gae(rewards, values, mask, gamma, gae_lambda)

    def padded(tensor: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, padding), value=value)

    found = gae(padded(rewards, 0.0), padded(values, 1e3), padded(mask, False), gamma, gae_lambda)
    torch.testing.assert_close(found, padded(plain, 0.0))


def test_whitened_tokens_have_mean_zero_and_variance_one() -> None:
    found = whiten(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]]), MASK)
    torch.testing.assert_close(found * math.sqrt(2), torch.tensor([[-2.0, -1.0, 0.0], [1.0, 2.0, 0.0]]))


def test_equal_values_are_whitened_to_zero() -> None:
    assert whiten(torch.full((2, 3), 7.0), MASK).tolist() == [[0.0] * 3] * 2


def test_a_masked_mean_counts_what_exists() -> None:
    assert masked_mean(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]]), MASK).item() == 3.0


def one_token(
    ratio: float, advantage: float, value: float = 0.0, old_value: float = 0.0, returned: float = 0.0
) -> tuple[float, ...]:
    """Return the losses and clipped shares of a single token."""
    numbers = (math.log(ratio), value, 0.0, old_value, advantage, returned)
    logprobs, values, old_logprobs, old_values, advantages, returns = (torch.tensor([[x]]) for x in numbers)
    mask = torch.tensor([[True]])
    losses = ppo_losses(logprobs, values, old_logprobs, old_values, advantages, returns, mask, PPO)
    return tuple(float(x) for x in (losses.policy, losses.value, losses.clipped, losses.clipped_value))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0),
        (1.1, 2.0, -2.2, 0),
        (1.5, 2.0, -2.4, 1),  # the gain ends at 1.2
        (1.5, -2.0, 3.0, 0),  # a loss is never clipped
        (0.5, 2.0, -1.0, 0),
        (0.5, -2.0, 1.6, 1),  # the gain ends at 0.8
    ],
)
def test_the_policy_loss_is_the_worse_of_the_ratio_and_the_clipped_one(
    ratio: float, advantage: float, loss: float, clipped: float
) -> None:
    policy, _, share, _ = one_token(ratio, advantage)
    assert policy == pytest.approx(loss)
    assert share == clipped


@pytest.mark.parametrize(
    ("value", "old_value", "returned", "loss", "clipped"),
    [
        (1.0, 1.0, 3.0, 2.0, 0),  # (1 - 3)^2 / 2
        (1.4, 1.0, 3.0, 1.28, 0),
        (2.0, 1.0, 3.0, 1.125, 1),  # clipped to 1.5: (1.5 - 3)^2 / 2
        (2.0, 1.0, 0.0, 2.0, 0),  # the unclipped error is the worse
    ],
)
def test_the_value_loss_is_half_the_worse_squared_error(
    value: float, old_value: float, returned: float, loss: float, clipped: float
) -> None:
    _, found, _, share = one_token(1.0, 0.0, value, old_value, returned)
    assert found == pytest.approx(loss)
    assert share == clipped


def test_losses_are_means_over_the_tokens_that_exist() -> None:
    zeros = torch.zeros(2, 3)
    advantages = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
    returns = torch.tensor([[0.0, 2.0, 0.0], [4.0, 0.0, 99.0]])
    losses = ppo_losses(zeros, zeros, zeros, zeros, advantages, returns, MASK, PPO)
    assert float(losses.policy) == -3.0
    assert float(losses.value) == pytest.approx(0.5 * (4 + 16) / 5)
    assert float(losses.total(PPOSection(vf_coef=0.1))) == pytest.approx(-3.0 + 0.1 * 2.0)
    assert (float(losses.clipped), float(losses.clipped_value)) == (0.0, 0.0)


def test_a_clipped_token_has_no_gradient() -> None:
    logprobs = torch.tensor([[math.log(1.5), 0.0]], requires_grad=True)
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
    losses = ppo_losses(logprobs, zeros, zeros, zeros, ones, zeros, ones.bool(), PPO)
    losses.policy.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -0.5]]


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),
        (6.6, 0.2 * (1 + 0.1 * 0.01)),
        (60.0, 0.2 * (1 + 0.2 * 0.01)),
        (5.4, 0.2 * (1 - 0.1 * 0.01)),
        (0.0, 0.2 * (1 - 0.2 * 0.01)),
        (-3.0, 0.2 * (1 - 0.2 * 0.01)),
    ],
)
def test_the_kl_coefficient_follows_its_target(kl: float, expected: float) -> None:
    ppo = PPOSection(kl_target=6.0, kl_horizon=10_000.0)
    assert adapted_kl_coef(0.2, kl, completions=100, ppo=ppo) == pytest.approx(expected, rel=1e-12)


def test_without_a_target_the_kl_coefficient_stays() -> None:
    assert adapted_kl_coef(0.2, kl=60.0, completions=100, ppo=PPOSection(kl_target=None)) == 0.2
