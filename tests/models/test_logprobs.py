"""The fused log-probabilities are log_softmax and gather, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from rsoup.models.logprobs import CHUNK, token_logprobs, token_logprobs_and_entropies


@pytest.mark.parametrize("rows", [1, 7, CHUNK, 2 * CHUNK + 5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_values_and_gradients_are_those_of_log_softmax(rows: int, bias: bool, temperature: float) -> None:
    torch.manual_seed(rows)
    head = torch.nn.Linear(9, 31, bias=bias).requires_grad_(False)
    targets = torch.randint(31, (rows,))
    weights = torch.randn(rows)
    hidden = torch.randn(rows, 9, requires_grad=True)
    fused = token_logprobs(hidden, head, targets, temperature)
    plain = (head(hidden) / temperature).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)

    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((weights * fused).sum(), hidden)
    (expected,) = torch.autograd.grad((weights * plain).sum(), hidden)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_two_equal_logits_are_a_coin() -> None:
    head = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.ones_(head.weight)
    assert token_logprobs(torch.tensor([[3.0]]), head, torch.tensor([1])).item() == pytest.approx(-math.log(2))


def test_large_logits_do_not_overflow() -> None:
    head = torch.nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [-1.0]])
    found = token_logprobs(torch.tensor([[500.0], [500.0]]), head, torch.tensor([0, 1]))
    assert found.tolist() == [0.0, -1000.0]


def test_half_precision_states_get_float32_values_and_gradients_of_their_own_dtype() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 20, bias=False).bfloat16().requires_grad_(False)
    hidden = torch.randn(5, 8).bfloat16().requires_grad_()
    targets = torch.randint(20, (5,))
    fused = token_logprobs(hidden, head, targets)
    (gradient,) = torch.autograd.grad(fused.sum(), hidden)

    exact = (hidden.float() @ head.weight.float().T).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    assert fused.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(fused, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("rows", [1, CHUNK + 3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropies_and_their_gradients_are_those_of_the_distribution(rows: int, temperature: float) -> None:
    torch.manual_seed(rows)
    head = torch.nn.Linear(9, 31, bias=True).requires_grad_(False)
    targets = torch.randint(31, (rows,))
    one, other = torch.randn(rows), torch.randn(rows)
    hidden = torch.randn(rows, 9, requires_grad=True)
    logprobs, entropies = token_logprobs_and_entropies(hidden, head, targets, temperature)
    plain = torch.distributions.Categorical(logits=head(hidden) / temperature)

    torch.testing.assert_close(entropies, plain.entropy(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logprobs, plain.log_prob(targets), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((one * logprobs + other * entropies).sum(), hidden)
    (expected,) = torch.autograd.grad((one * plain.log_prob(targets) + other * plain.entropy()).sum(), hidden)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_entropy_of_a_coin_is_log_two() -> None:
    head = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.ones_(head.weight)
    _, entropies = token_logprobs_and_entropies(torch.tensor([[3.0]]), head, torch.tensor([1]))
    assert entropies.item() == pytest.approx(math.log(2))
