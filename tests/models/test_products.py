"""Products by the wider library are those of torch, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rsoup.models import products

ROWS, INNER, OUT = 24, 320, 256

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which oneDNN is preferred."""
    monkeypatch.setattr(products, "is_wide", lambda: True)


def layer_of(*, bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(INNER, OUT, bias=bias).requires_grad_(False)


@needs_onednn
@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_and_its_gradient_are_those_of_torch(*, bias: bool) -> None:
    layer = layer_of(bias=bias)
    rows = torch.randn(2, ROWS, INNER)[:, ::2].requires_grad_()
    expected = nn.functional.linear(rows, layer.weight, layer.bias)
    slope = torch.randn_like(expected)
    (own,) = torch.autograd.grad(expected, rows, slope)

    products.widen(layer)
    found = layer(rows)

    assert found.grad_fn is not None
    assert "_Product" in type(found.grad_fn).__name__
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found, rows, slope)[0], own, rtol=1e-4, atol=1e-5)


@needs_onednn
@pytest.mark.usefixtures("wide")
def test_weights_that_are_trained_or_narrow_stay_with_torch() -> None:
    trained, narrow = layer_of(bias=False).requires_grad_(), layer_of(bias=False).bfloat16()
    for layer in (trained, narrow):
        products.widen(layer)
        found = layer(torch.randn(ROWS, INNER, dtype=layer.weight.dtype, requires_grad=True))
        assert "_Product" not in type(found.grad_fn).__name__
    layer = trained
    layer(torch.randn(ROWS, INNER)).sum().backward()
    assert layer.weight.grad is not None


def test_layers_stay_as_they_are_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "is_wide", lambda: False)
    layer = layer_of(bias=False)
    products.widen(layer)
    assert type(layer) is nn.Linear
