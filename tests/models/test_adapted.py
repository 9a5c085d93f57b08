"""LoRA layers in fewer passes compute what PEFT computes, and so do their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

from rsoup.models.adapted import settled, shorten


def layer_of(dtype: torch.dtype, **settings: Any) -> Any:
    """Return a layer of PEFT with random factors, as a policy has it."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(24, 40)).to(dtype)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["0"], init_lora_weights=False, **settings)).eval()
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    shorten([layer])
    return layer


def slopes(layer: Any, found: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    asked = rows, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return torch.autograd.grad((weights * found).sum(), asked)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_layer_and_its_gradients_are_those_of_peft(dtype: torch.dtype, near: float) -> None:
    layer = layer_of(dtype)
    rows = torch.randn(2, 7, 24).to(dtype).requires_grad_()
    found, expected = layer(rows), Linear.forward(layer, rows)
    assert "_Adapted" in type(found.grad_fn).__name__ or "_Adapted" in type(found.grad_fn.next_functions[0][0]).__name__
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=near, atol=near * float(expected.detach().abs().max()))
    for one, other in zip(slopes(layer, found, rows), slopes(layer, expected, rows), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=near, atol=near * float(other.abs().max()))
    with torch.no_grad(), settled([layer], "default"):
        assert torch.equal(layer(rows), found)


def test_factors_that_have_changed_count_once_the_block_has_ended() -> None:
    layer = layer_of(torch.float32)
    rows = torch.randn(3, 24)
    with torch.no_grad():
        with settled([layer], "default"):
            before = layer(rows)
        layer.lora_B["default"].weight.mul_(2)
        assert (layer(rows) - before).abs().max() > 0.1
        with pytest.raises(RuntimeError, match="within"), settled([layer], "default"):
            raise RuntimeError("within")
        torch.testing.assert_close(layer(rows), Linear.forward(layer, rows))


def test_what_is_not_plain_is_left_to_peft() -> None:
    layer = layer_of(torch.float32, lora_dropout=0.5)
    rows = torch.randn(3, 24)
    layer.lora_dropout["default"].train()
    torch.manual_seed(2)
    found = layer(rows)
    torch.manual_seed(2)
    assert torch.equal(found, Linear.forward(layer, rows))
    layer.lora_dropout["default"].eval()
    layer.enable_adapters(False)
    assert torch.equal(layer(rows), layer.get_base_layer()(rows))
