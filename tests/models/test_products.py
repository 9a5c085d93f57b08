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


@pytest.mark.skipif(not products.packs(), reason="oneDNN does not multiply bfloat16 here")
@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_give_the_same_products_and_leave_no_trace(*, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(320, 256, bias=bias), nn.GELU(), nn.Linear(256, 320, bias=bias)).bfloat16()
    model.requires_grad_(False)
    rows = torch.randn(3, 24, 320).bfloat16()
    usual = model(rows)
    with products.packed(model):
        assert "forward" in vars(model[0])
        assert "forward" in vars(model[2])
        torch.testing.assert_close(model(rows), usual)
    assert not any("forward" in vars(layer) for layer in model)
    assert torch.equal(model(rows), usual)


def test_nothing_is_packed_that_is_trained_wide_small_or_changed_by_others() -> None:
    trained, wide, small, changed = nn.Linear(320, 256), nn.Linear(320, 256), nn.Linear(8, 8), nn.Linear(320, 256)
    for layer in (trained, small, changed):
        layer.bfloat16()
    for layer in (wide, small, changed):
        layer.requires_grad_(False)

    def own(rows: torch.Tensor) -> torch.Tensor:
        return rows

    changed.forward = own  # type: ignore[method-assign]
    with products.packed(nn.ModuleList([trained, wide, small, changed])):
        assert not any("forward" in vars(layer) for layer in (trained, wide, small))
        assert changed.forward is own
    assert changed.forward is own


@pytest.mark.skipif(not products.packs(), reason="oneDNN does not multiply bfloat16 here")
def test_an_error_within_leaves_no_packed_weights() -> None:
    layer = nn.Linear(320, 256).bfloat16().requires_grad_(False)

    def fails() -> None:
        with products.packed(layer):
            assert "forward" in vars(layer)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert "forward" not in vars(layer)
